"""Atomic files, digests, and the lock of a run directory."""

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from storage.errors import InUseError, StorageError

# Everything that is written under a temporary name carries this suffix, so that leftovers of a kill are known.
TEMPORARY_SUFFIX = ".partial"


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file so that it exists either whole or not at all, even if the process or machine dies meanwhile.

    Raises:
        OSError: If it cannot be written (full disk, no permission); the old content is then untouched.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}{TEMPORARY_SUFFIX}")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_directory(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write a value as readable JSON, atomically."""
    write_bytes(path, (json.dumps(value, indent=2, sort_keys=True) + "\n").encode())


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        StorageError: If it is missing or no JSON; the message names the file.
    """
    try:
        return json.loads(path.read_text())
    except FileNotFoundError as error:
        raise StorageError(f"{path} does not exist") from error
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise StorageError(f"{path} is damaged (not JSON): delete it and run again") from error


def sync_directory(path: Path) -> None:
    """Make the directory entry of a renamed file durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def digest_of(*parts: bytes) -> str:
    """SHA-256 over byte strings, each preceded by its length, in hexadecimal."""
    sha = hashlib.sha256()
    for part in parts:
        sha.update(len(part).to_bytes(8, "big"))
        sha.update(part)
    return sha.hexdigest()


def digest_of_json(value: Any) -> str:
    """SHA-256 of a JSON value, independent of the order of keys."""
    return digest_of(json.dumps(value, sort_keys=True, separators=(",", ":")).encode())


def digest_of_file(path: Path) -> str:
    """SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def remove_leftovers(directory: Path) -> int:
    """Delete temporary files and folders that killed processes left; call it only while holding the directory's lock.

    Returns:
        How many there were.
    """
    leftovers = list(directory.rglob(f"*{TEMPORARY_SUFFIX}"))
    for path in leftovers:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    return len(leftovers)


@contextmanager
def exclusive(directory: Path) -> Iterator[None]:
    """Hold the only right to write to a run directory; the operating system frees it however the process ends.

    Raises:
        InUseError: If another process holds it.
    """
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / ".lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InUseError(
                f"another run is working in {directory}: wait for it to end, or choose another run directory"
            ) from error
        yield
