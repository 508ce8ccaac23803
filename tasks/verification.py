"""What is broken in a run directory counts as not done, and Prefect's cache says nothing else.

Before a run goes on, one listing tells what is missing. What is damaged is noticed by whoever reads it: Zarr checks the
images, and stages check the other files that they are made from. Then, and for `dfnas repair`, every file is checked.
"""

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.serializers import JSONSerializer

from nas_core.checkpoint import Progress, no_progress
from nas_core.reporting.wording import command
from storage.errors import StorageError
from storage.integrity import forget, is_sound, take_stock, verify_run
from storage.layout import RunLayout
from storage.manifests import Manifest, read_manifest
from tasks.run import Run


@task(name="take-stock", task_run_name="take stock", cache_policy=NO_CACHE, tags=["dfnas"])
def forget_missing(run: Run) -> list[str]:
    """List the run directory; finished pieces of which a file is missing lose their manifest, to be made anew.

    Returns:
        Names of these pieces.
    """
    logger = get_run_logger()
    verification = take_stock(run.layout)
    for fault in verification.faults:
        logger.warning("%s will be made anew: missing or damaged %s", fault.piece, ", ".join(fault.files))
    forget(run.layout, verification)
    for path in drop_unfounded_results(run):
        logger.warning("%s is no result of a finished piece and was removed from Prefect's cache", path.name)
    return [fault.piece for fault in verification.faults if fault.piece is not None]


def forget_damaged(layout: RunLayout, progress: Progress = no_progress) -> list[str]:
    """Check every file of a run against its checksum; broken pieces lose their manifest, to be made anew.

    Returns:
        Names of these pieces.
    """
    verification = verify_run(layout, progress)
    forget(layout, verification)
    return [fault.piece for fault in verification.faults if fault.piece is not None]


def check_sources(layout: RunLayout, sources: Iterable[Manifest]) -> None:
    """Check the files that a piece of work is made from, before it reads them.

    The dataset's are left out: it checks each object when that is read.

    Raises:
        StorageError: Naming the first file that is missing or damaged.
    """
    for source in sources:
        for name, digest in source.files.items():
            path = layout.root / name
            if not path.is_relative_to(layout.dataset) and not is_sound(path, digest):
                raise StorageError(f"{path} is missing or damaged")


def check_pieces(layout: RunLayout, *pieces: str) -> None:
    """Check the files of finished pieces, for those who have no manifests of what they read.

    Raises:
        StorageError: If a piece is not finished, or a file of it is missing or damaged.
    """
    for piece in pieces:
        path = layout.manifest(piece)
        manifest = read_manifest(path)
        if manifest is None and not path.exists():
            raise StorageError(f"{layout.root} has no finished {piece} (see `dfnas status`)")
        try:
            if manifest is None:
                raise StorageError(f"{path} is missing or damaged")
            check_sources(layout, [manifest])
        except StorageError as error:
            raise StorageError(f"{error}; {command('repair', layout.root)} makes {piece} anew") from error


@contextmanager
def forgetting_damage(layout: RunLayout) -> Iterator[None]:
    """Within, what cannot be read because it is damaged counts as not done, so that the next run makes it anew.

    Raises:
        StorageError: Saying which pieces these are.
    """
    try:
        yield
    except StorageError as error:
        damaged = forget_damaged(layout)
        if not damaged:
            raise
        raise StorageError(f"{error}; run again, which makes {', '.join(damaged)} anew") from error


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
