"""Before a run goes on: what is broken in its directory counts as not done, and Prefect's cache says nothing else."""

import json
from pathlib import Path
from typing import Any

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.serializers import JSONSerializer

from storage.integrity import forget, verify_run
from storage.manifests import read_manifest
from tasks.progress import progress_bar
from tasks.run import Run


@task(name="verify", task_run_name="verify", cache_policy=NO_CACHE, tags=["dfnas"])
def verify(run: Run) -> list[str]:
    """Check every finished piece's files against their checksums; broken pieces lose their manifest, to be made anew.

    Returns:
        Names of the broken pieces.
    """
    logger = get_run_logger()
    verification = verify_run(run.layout, progress_bar("verify"))
    for fault in verification.faults:
        logger.warning("%s will be made anew: missing or damaged %s", fault.piece, ", ".join(fault.files))
    forget(run.layout, verification)
    for path in drop_unfounded_results(run):
        logger.warning("%s is no result of a finished piece and was removed from Prefect's cache", path.name)
    return [fault.piece for fault in verification.faults if fault.piece is not None]


def drop_unfounded_results(run: Run) -> list[Path]:
    """Remove what of Prefect's cached results differs from the manifests that they mirror.

    Prefect checks no checksums, and it reads a result with the serializer that the file itself names, of which one is
    pickle: so a file is kept only if it holds, as JSON, exactly a manifest of this directory.

    Returns:
        The removed files.
    """
    if not run.layout.cache.is_dir():
        return []
    unfounded = [path for path in sorted(run.layout.cache.rglob("*")) if path.is_file() and not _is_founded(run, path)]
    for path in unfounded:
        path.unlink()
    return unfounded


def _is_founded(run: Run, path: Path) -> bool:
    try:
        record = json.loads(path.read_bytes())
        result = json.loads(record["result"])
        metadata: dict[str, Any] = record["metadata"]
        manifest = read_manifest(run.layout.manifest(result["data"]["piece"]))
        return (
            metadata["serializer"] == JSONSerializer().model_dump(mode="json")
            and metadata.get("storage_block_id") is None
            and result["__class__"] == "storage.manifests.Manifest"
            and manifest is not None
            and result["data"] == manifest.model_dump(mode="json")
        )
    except (KeyError, TypeError, ValueError):
        return False
