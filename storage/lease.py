"""The lock of a run directory in an object store: a lease that its holder renews.

Leases are numbered objects, of which the highest counts. An object is created only if there is none of its name
(`If-None-Match: *`, which the store guarantees), so of those who want to follow on a lease one succeeds. A lease is
free once its holder gave it back, or is a dead process of this machine, or has not renewed it for `LEASE_SECONDS` by
the clock of the one who waits: no two clocks are compared.
"""

import json
import os
import platform
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from storage.errors import InUseError, StorageError
from storage.locations import file_system, key, read_bytes

RENEW_SECONDS = 5.0
LEASE_SECONDS = 30.0


@contextmanager
def leased(directory: Path) -> Iterator[None]:
    """Hold the only right to write below a prefix.

    A holder that is suspended for longer than a lease does not notice that another went on: both then write the same
    bytes to the same names.

    Raises:
        InUseError: If another process holds it.
        StorageError: If the store would let two processes create the same object.
        OSError: If it cannot be written.
    """
    try:
        lease = _acquire(directory / ".lock", directory)
    except (StorageError, OSError):
        raise
    except Exception as error:  # Each store's client has errors of its own, of several lines at times.
        raise OSError(str(error).partition("\n")[0]) from error
    ended = threading.Event()
    renewal = threading.Thread(target=_renew, args=(lease, ended), daemon=True)
    renewal.start()
    try:
        yield
    finally:
        ended.set()
        renewal.join()
        with suppress(Exception):  # Not given back, it ends by itself.
            _write(lease, renewals=0, released=True)


def _acquire(folder: Path, directory: Path) -> Path:
    in_use = InUseError(f"another run is working in {directory}: wait for it to end, or choose another run directory")
    latest = _latest(folder)
    if latest is not None and not _is_free(latest):
        raise in_use
    lease = folder / f"{1 if latest is None else int(latest.name) + 1:010d}"
    try:
        _write(lease, renewals=0, mode="create")
    except FileExistsError as error:
        raise in_use from error
    with suppress(FileExistsError):
        _write(lease, renewals=0, mode="create")
        raise StorageError(
            f"the store of {directory} creates objects that exist already, so it cannot keep two runs apart: use one "
            "that knows If-None-Match"
        )
    if _latest(folder) != lease:  # Others followed on each other while this process was looking.
        lease.unlink(missing_ok=True)
        raise in_use
    for older in _leases(folder)[:-1]:
        older.unlink(missing_ok=True)
    return lease


def _leases(folder: Path) -> list[Path]:
    names = sorted(name.rpartition("/")[2] for name in file_system(folder).find(key(folder)))
    return [folder / name for name in names if name.isdecimal()]


def _latest(folder: Path) -> Path | None:
    leases = _leases(folder)
    return leases[-1] if leases else None


def _is_free(lease: Path) -> bool:
    first = _read(lease)
    if first.get("released") or (first.get("machine") == _machine() and not _is_alive(first.get("process", 0))):
        return True
    deadline = time.monotonic() + LEASE_SECONDS
    while time.monotonic() < deadline:
        time.sleep(RENEW_SECONDS / 2)
        now = _read(lease)
        if now != first:
            return bool(now.get("released"))
    return True


def _read(lease: Path) -> dict[str, Any]:
    """What a lease says; nothing, if it is damaged, or was removed by a process that follows on it."""
    try:
        state = json.loads(read_bytes(lease))
    except (FileNotFoundError, ValueError):
        return {}
    return state if isinstance(state, dict) else {}


def _write(lease: Path, *, renewals: int, released: bool = False, mode: str = "overwrite") -> None:
    state = {"machine": _machine(), "process": os.getpid(), "renewals": renewals, "released": released}
    file_system(lease).pipe_file(key(lease), json.dumps(state).encode(), mode=mode)


def _renew(lease: Path, ended: threading.Event) -> None:
    renewals = 0
    while not ended.wait(RENEW_SECONDS):
        renewals += 1
        with suppress(Exception):  # The next one may succeed; if none does, others may follow on the lease.
            _write(lease, renewals=renewals)


def _machine() -> str:
    """A name of this machine, as far as its processes can be asked whether they live."""
    parts = [platform.node()]
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        parts += [boot, str(Path("/proc/self/ns/pid").readlink())]
    return " ".join(parts)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
