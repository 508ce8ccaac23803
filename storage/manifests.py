"""Manifests: what a run is made of, and the record, written last, that a piece of work is done.

They are sealed with a checksum, and by them all other files are checked.
"""

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from storage.errors import StorageError
from storage.files import digest_of_file, leads_outside, read_sealed_json, sealed, write_json


class Provenance(BaseModel):
    """What a run is made of: its manifest.json.

    Attributes:
        config: Digest of the config's values, without where it runs.
        teacher: The teacher's fingerprint.
        seed: The run's seed.
        versions: Of Python and of the packages that decide what is computed, when the run was started.
        execution: Where it ran last.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    config: str
    teacher: str
    seed: int
    versions: dict[str, str]
    execution: dict[str, Any] = {}

    def write(self, path: Path) -> None:
        """Write it atomically."""
        write_json(path, sealed(self.model_dump(mode="json")))

    @classmethod
    def read(cls, path: Path) -> "Provenance":
        """Read it back.

        Raises:
            StorageError: If it is missing or damaged.
        """
        try:
            return cls.model_validate(read_sealed_json(path))
        except ValidationError as error:
            raise StorageError(f"{path} is damaged: delete it and run again") from error


class Manifest(BaseModel):
    """One finished piece of work.

    Attributes:
        piece: Its name, such as "synthesis-round-001-shard-00002" or "search".
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

    @field_validator("files")
    @classmethod
    def _inside(cls, files: dict[str, str]) -> dict[str, str]:
        """A run directory may be a stranger's: none of its files is elsewhere."""
        for name in files:
            if leads_outside(name):
                raise ValueError(f"{name} is outside of the run directory")
        return files

    def write(self, path: Path) -> None:
        """Write it atomically; do so after all of its files."""
        write_json(path, sealed(self.model_dump(mode="json")))


def read_manifest(path: Path) -> Manifest | None:
    """The manifest at a path, or None if there is none that can be read: then the work counts as not done."""
    try:
        return Manifest.model_validate(read_sealed_json(path))
    except (StorageError, ValidationError):
        return None


def digests_of_files(root: Path, paths: list[Path]) -> dict[str, str]:
    """SHA-256 of files, by path relative to the run directory."""
    return {str(path.relative_to(root)): digest_of_file(path) for path in paths}
