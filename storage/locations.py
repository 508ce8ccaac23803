"""Where a run directory is: a folder, or a prefix in an object store that a URL names.

Both are paths: `pathlib.Path` here, and there `UPath` of universal_pathlib, which has the same methods. What differs is
in this package alone: an object appears whole by one PUT, so nothing is renamed, and the lock is a lease.
"""

import os
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote

from storage.errors import StorageError

EXTRAS = {"s3": "s3", "gs": "gcs", "gcs": "gcs", "az": "azure", "abfs": "azure"}
"""The extra of dfnas that each kind of URL needs."""

# Another machine's writes are to be seen at once.
OPTIONS: dict[str, Any] = {"use_listings_cache": False}
OUTAGES = {
    "EndpointConnectionError", "HTTPClientError", "ConnectionClosedError", "ClientConnectionError",
    "ServiceRequestError",
}  # fmt: skip
"""What the stores' clients raise when the network fails and that is no OSError: of botocore, aiohttp and azure."""


def location(text: str | Path) -> Path:
    """The path that a text names: of a folder, or with `://` in it, of a prefix in an object store.

    `~` at the start of a folder's is the home directory, as in a shell.

    Raises:
        StorageError: If no store is known for the URL, or its package is not installed; or `~` is no known user's.
    """
    protocol, separator, name = str(text).partition("://")
    if not separator:
        try:
            return Path(text).expanduser()
        except RuntimeError as error:
            raise StorageError(f"{text} is in the home directory of no known user") from error
    if protocol not in EXTRAS or not name.strip("/"):
        known = ", ".join(f"{kind}://bucket/run" for kind in EXTRAS)
        raise StorageError(f"{text} is neither a folder nor a URL like {known}")
    try:
        from upath import UPath

        path = UPath(str(text).rstrip("/"), **OPTIONS)
        _ = path.fs
    except ImportError as error:
        needed = f"pip install 'dfnas[{EXTRAS[protocol]}]'"
        raise StorageError(f"{text} needs a package that is not installed: {needed}") from error
    return cast(Path, path)


def reach(text: str | Path) -> Path:
    """The same, after one request to the store if it is in one.

    Raises:
        StorageError: As above, or if the store cannot be reached with the credentials there are.
    """
    path = location(text)
    try:
        path.exists()
    except Exception as error:
        if not is_remote(path):
            raise
        raise StorageError(f"cannot reach {path}: {error}") from error
    return path


def is_remote(path: Path) -> bool:
    """Whether a path is in an object store."""
    return not isinstance(path, Path)


def is_outage(error: BaseException) -> bool:
    """Whether an error is of a network that failed, where it is no `OSError`."""
    return any(kind.__name__ in OUTAGES for kind in type(error).__mro__)


def file_system(path: Path) -> Any:
    """The fsspec file system of a path in an object store."""
    return cast(Any, path).fs


def key(path: Path) -> str:
    """What that file system calls the path."""
    return cast(Any, path).path


def read_bytes(path: Path) -> bytes:
    """A file's content; of an object by one GET, so that all of it is of one moment.

    Raises:
        FileNotFoundError: If there is none.
    """
    return file_system(path).cat_file(key(path)) if is_remote(path) else path.read_bytes()


def local_folder(root: Path) -> Path:
    """Where files go that concern this machine alone: the run directory, or of a URL, a folder in the user's cache."""
    if not is_remote(root):
        return root
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return caches / "dfnas" / quote(str(root), safe="")
