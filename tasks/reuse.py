"""What another run has made from the same, taken over instead of being made again."""

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from nas_core.config import RunConfig, flatten
from nas_core.errors import InputError
from storage.files import write_bytes
from storage.layout import RunLayout
from storage.locations import read_bytes
from storage.manifests import Manifest, read_manifest

if TYPE_CHECKING:
    from tasks.run import Run


def check_reusable(run: "Run", other: "Run") -> None:
    """Check that a run can have anything to take over from another one.

    Raises:
        InputError: If the other is the same run, or its images are other ones; names every setting that differs.
    """
    if other.directory == run.directory:
        raise InputError(f"{other.directory} is the run directory itself, so there is nothing to reuse from it")
    changes = differences(_of_images(other.config, other.fingerprint), _of_images(run.config, run.fingerprint))
    if changes:
        raise InputError(
            f"nothing of {other.directory} can be reused, because its images are other ones ({changes}): change these "
            "settings, or synthesise anew"
        )


def differences(theirs: dict[str, object], ours: dict[str, object]) -> str:
    """Every setting that differs between two flat configs, in words; empty if none does."""
    names = [name for name in sorted(theirs.keys() | ours.keys()) if theirs.get(name) != ours.get(name)]
    return "; ".join(f"{name}: {theirs.get(name)} there, {ours.get(name)} here" for name in names)


def take_over(layout: RunLayout, other: RunLayout, piece: str, key: str) -> Manifest | None:
    """Copy a finished piece of another run, if it was made from the same and its files are whole.

    Args:
        layout: The run directory.
        other: That of the other run.
        piece: Name of the piece.
        key: Digest of all that it has to be made from.

    Returns:
        Its manifest, here as there; None if the piece has to be made.
    """
    manifest = read_manifest(other.manifest(piece))
    if manifest is None or (manifest.piece, manifest.key) != (piece, key):
        return None
    for name, digest in manifest.files.items():
        content = _content(other.root / name)
        if content is None or hashlib.sha256(content).hexdigest() != digest:
            return None
        write_bytes(layout.root / name, content)
    manifest.write(layout.manifest(piece))
    return manifest


def _of_images(config: RunConfig, teacher: str) -> dict[str, object]:
    """What a run's images depend on."""
    return flatten({"teacher": teacher[:12], "seed": config.seed, "synthesis": config.content()["synthesis"]})


def _content(path: Path) -> bytes | None:
    try:
        return read_bytes(path)
    except FileNotFoundError:
        return None
