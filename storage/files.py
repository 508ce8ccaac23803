"""Atomic files, digests, and the lock of a run directory."""

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from storage.errors import InUseError, StorageError
from storage.lease import leased
from storage.locations import file_system, is_remote, key, read_bytes

# Everything that is written under a temporary name carries this suffix, so that leftovers of a kill are known.
TEMPORARY_SUFFIX = ".partial"


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file so that it exists either whole or not at all, even if the process or machine dies meanwhile.

    In an object store that is one PUT.

    Raises:
        OSError: If it cannot be written (full disk, no permission); the old content is then untouched.
    """
    if is_remote(path):
        file_system(path).pipe_file(key(path), content)
        return
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
        return json.loads(read_bytes(path))
    except FileNotFoundError as error:
        raise StorageError(f"{path} does not exist") from error
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise StorageError(f"{path} is damaged (not JSON): delete it and run again") from error


def sealed(value: dict[str, Any]) -> dict[str, Any]:
    """A JSON object with a "checksum" over all else in it, by which `unsealed` knows that it is whole."""
    return {**value, "checksum": digest_of_json(value)}


def unsealed(value: dict[str, Any]) -> dict[str, Any]:
    """The object that was sealed. One without a checksum, from before there were any, passes as it is.

    So callers have to refuse fields that they do not know: the name of the checksum may itself be damaged.

    Raises:
        ValueError: If the content does not fit the checksum.
    """
    content = {key: part for key, part in value.items() if key != "checksum"}
    if "checksum" in value and value["checksum"] != digest_of_json(content):
        raise ValueError("the content does not fit its checksum")
    return content


def read_sealed_json(path: Path) -> dict[str, Any]:
    """Read a sealed JSON object from a file.

    Raises:
        StorageError: If it is missing, no JSON object, or not what was sealed; the message names the file.
    """
    value = read_json(path)
    try:
        return unsealed(value)
    except (AttributeError, TypeError, ValueError) as error:
        raise StorageError(f"{path} is damaged ({error}): delete it and run again") from error


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
    if is_remote(path):
        return hashlib.sha256(read_bytes(path)).hexdigest()
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def nearest_existing(path: Path) -> Path:
    """The path itself or the nearest folder above that is there."""
    return next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.exists())


def free_space(directory: Path) -> int:
    """Bytes that are free on the disk of a folder, which need not exist yet."""
    return shutil.disk_usage(nearest_existing(directory)).free


def leads_outside(name: str) -> bool:
    """Whether a file's name, relative to a folder, is of a file elsewhere."""
    path = PurePosixPath(name)
    return path.is_absolute() or ".." in path.parts


def remove_leftovers(directory: Path) -> int:
    """Delete temporary files and folders that killed processes left; call it only while holding the directory's lock.

    Returns:
        How many there were.
    """
    if is_remote(directory):
        return 0  # An object appears whole, under its own name.
    leftovers = [Path(entry.path) for entry in walk(directory) if entry.name.endswith(TEMPORARY_SUFFIX)]
    for path in leftovers:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    return len(leftovers)


def walk(directory: Path) -> Iterator[os.DirEntry[str]]:
    """Everything below a directory, in no order; links are not followed. One listing per folder, and no more."""
    folders = [str(directory)]
    while folders:
        with os.scandir(folders.pop()) as entries:
            for entry in entries:
                yield entry
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)


def files_with_content(directory: Path) -> set[str]:
    """Paths of all files below a directory that are not empty, relative to it."""
    if is_remote(directory):
        found, start = file_system(directory).find(key(directory), detail=True), len(key(directory)) + 1
        return {name[start:] for name, about in found.items() if about["size"]}
    start = len(str(directory)) + 1
    return {entry.path[start:] for entry in walk(directory) if entry.is_file() and entry.stat().st_size}


def json_files(folder: Path) -> list[Path]:
    """The `.json` files in a folder, in the order of their names; none if there is no such folder."""
    if not is_remote(folder):
        return sorted(folder.glob("*.json"))
    # Not `glob`: in a store that takes the whole path for a pattern, and a prefix may hold brackets.
    names = (name.rpartition("/")[2] for name in file_system(folder).find(key(folder), maxdepth=1))
    return [folder / name for name in sorted(names) if name.endswith(".json")]


def refuse_outside_links(directory: Path) -> None:
    """Refuse a directory from which a symbolic link leads out: work in it would read or overwrite what is elsewhere.

    The directory itself may be a link.

    Raises:
        StorageError: Naming the first such link.
    """
    if is_remote(directory):
        return  # There are no links in an object store.
    root = directory.resolve()
    for entry in walk(directory):
        if entry.is_symlink() and not Path(entry.path).resolve().is_relative_to(root):
            raise StorageError(
                f"{entry.path} is a symbolic link to outside of {directory}: put the files there themselves, "
                "or make the whole directory a link"
            )


@contextmanager
def exclusive(directory: Path) -> Iterator[None]:
    """Hold the only right to write to a run directory; it is freed however the process ends.

    In a folder the operating system does so at once; for an object store, see `storage.lease`.

    Raises:
        InUseError: If another process holds it.
    """
    if is_remote(directory):
        with leased(directory):
            yield
        return
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / ".lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InUseError(
                f"another run is working in {directory}: wait for it to end, or choose another run directory"
            ) from error
        yield
