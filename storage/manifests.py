"""Manifests: the record, written last, that a piece of work is done, and by which its files are checked."""

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from storage.files import digest_of_file, write_json


class Manifest(BaseModel):
    """One finished piece of work.

    Attributes:
        piece: Its name, such as "synthesis-r001-s00002" or "search".
        key: Digest of everything that it was made from; equal keys mean equal content.
        digest: Digest of its content, what later stages build their keys from.
        files: SHA-256 of every file that belongs to it, by path relative to the run directory.
        figures: A few numbers or words about it, for status and reports.
        seconds: Wall time that it took, in seconds.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    piece: str
    key: str
    digest: str
    files: dict[str, str]
    figures: dict[str, Any]
    seconds: float

    def write(self, path: Path) -> None:
        """Write it atomically; do so after all of its files."""
        write_json(path, self.model_dump(mode="json"))

    def broken_files(self, root: Path) -> list[str]:
        """Its files that are missing or differ from their digest."""
        return [
            name
            for name, digest in self.files.items()
            if not (root / name).is_file() or digest_of_file(root / name) != digest
        ]


def read_manifest(path: Path) -> Manifest | None:
    """The manifest at a path, or None if there is none that can be read: then the work counts as not done."""
    try:
        return Manifest.model_validate_json(path.read_bytes())
    except (FileNotFoundError, ValidationError):
        return None


def digests_of_files(root: Path, paths: list[Path]) -> dict[str, str]:
    """SHA-256 of files, by path relative to the run directory."""
    return {str(path.relative_to(root)): digest_of_file(path) for path in paths}
