"""`dfnas doctor`: what of an installation works, what is missing, and how to mend it."""

import importlib.metadata
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import torch
from packaging.requirements import Requirement
from prefect.settings import PREFECT_API_URL, PREFECT_HOME

from nas_core.memory import total_memory
from nas_core.precision import resolve_precision
from nas_core.reporting.wording import byte_size
from storage.files import free_space, nearest_existing
from tasks.server import REMEDY, silent_server

LEAST_DISK = 2**30  # bytes; the demo takes some MiB, a run on large images GiB
LEAST_MEMORY = 2 * 2**30


class Verdict(StrEnum):
    """How a check came out: `missing` stops a run, `look` does not."""

    OK = "ok"
    LOOK = "look"
    MISSING = "missing"


@dataclass(frozen=True)
class Finding:
    """The outcome of one check.

    Attributes:
        verdict: How it came out.
        subject: What was looked at.
        found: What was found.
        mend: What to do about it; empty if all is well.
    """

    verdict: Verdict
    subject: str
    found: str
    mend: str = ""


def examine(directory: Path) -> list[Finding]:
    """All checks.

    Args:
        directory: Where run directories go, such as `runs`; made if it can be.
    """
    return [*_packages(), *_devices(), _compiler(), _prefect(), _prefect_home(), *_disk(directory)]


def _packages() -> Iterator[Finding]:
    """Python and every required package against pyproject.toml; optional ones only if they are there."""
    wanted = ">=3.11"
    verdict = Verdict.OK if sys.version_info >= (3, 11) else Verdict.MISSING
    yield Finding(verdict, "Python", platform.python_version(), "" if verdict is Verdict.OK else f"install {wanted}")
    for text in importlib.metadata.requires("dfnas") or []:
        yield from _package(Requirement(text))


def _package(wanted: Requirement) -> Iterator[Finding]:
    optional = "extra" in str(wanted.marker or "")
    if optional and not wanted.name.startswith("timm"):
        return
    mend = f"pip install '{wanted.name}{wanted.specifier}'"
    try:
        version = importlib.metadata.version(wanted.name)
    except importlib.metadata.PackageNotFoundError:
        if optional:
            yield Finding(Verdict.OK, wanted.name, f"not installed; teachers from it need: {mend}")
        else:
            yield Finding(Verdict.MISSING, wanted.name, "not installed", mend)
        return
    if wanted.specifier.contains(version, prereleases=True):
        yield Finding(Verdict.OK, wanted.name, version)
    else:
        yield Finding(Verdict.MISSING, wanted.name, f"{version}, but {wanted.specifier} is needed", mend)


def _devices() -> Iterator[Finding]:
    """Accelerators, processors, memory."""
    for index in range(torch.cuda.device_count()):
        device = torch.device("cuda", index)
        found = f"{torch.cuda.get_device_name(device)}, {byte_size(total_memory(device))}"
        yield Finding(Verdict.OK, f"device cuda:{index}", found)
    if torch.backends.mps.is_available():
        yield Finding(Verdict.OK, "device mps", "Apple's GPU")
    if not torch.cuda.is_available() and shutil.which("nvidia-smi"):
        cuda = torch.version.cuda
        mend = "update the NVIDIA driver" if cuda else "install PyTorch's CUDA build (pytorch.org, Get Started)"
        built = f"built for CUDA {cuda}" if cuda else "built without CUDA"
        yield Finding(Verdict.LOOK, "device cuda", f"there is an NVIDIA GPU that PyTorch ({built}) cannot use", mend)
    cpu = torch.device("cpu")
    memory, arithmetic = total_memory(cpu), str(resolve_precision("auto", cpu)).removeprefix("torch.")
    found = f"{torch.get_num_threads()} threads, {byte_size(memory)}, {arithmetic}"
    short = memory < LEAST_MEMORY
    mend = f"use a machine with {byte_size(LEAST_MEMORY)} or more" if short else ""
    yield Finding(Verdict.LOOK if short else Verdict.OK, "device cpu", found, mend)


def _compiler() -> Finding:
    """Needed where a package has no wheel, and by torch.compile; dfnas itself compiles nothing."""
    for name in dict.fromkeys([os.environ.get("CC", "cc"), "gcc", "clang", "cl"]):
        if path := shutil.which(name):
            return Finding(Verdict.OK, "C compiler", path)
    mend = "apt install build-essential, xcode-select --install, or the like, if pip wants to build a package"
    return Finding(Verdict.LOOK, "C compiler", "none", mend)


def _prefect() -> Finding:
    """The server that runs report to."""
    url = PREFECT_API_URL.value()
    if not url:
        return Finding(Verdict.OK, "Prefect server", "none set: each command brings its own for as long as it runs")
    if silence := silent_server():
        return Finding(Verdict.MISSING, "Prefect server", silence, REMEDY)
    return Finding(Verdict.OK, "Prefect server", f"{url} answers")


def _prefect_home() -> Finding:
    """Where Prefect keeps its database and settings."""
    home = Path(PREFECT_HOME.value())
    trouble = _cannot_write(home)
    if trouble:
        return Finding(Verdict.MISSING, "Prefect's folder", trouble, "set PREFECT_HOME to a folder that you may write")
    return Finding(Verdict.OK, "Prefect's folder", str(home))


def _disk(directory: Path) -> Iterator[Finding]:
    """Write access to where runs go, and free space."""
    trouble = _cannot_write(directory)
    if trouble:
        mend = "change to a folder that you may write, or give --run-dir"
        yield Finding(Verdict.MISSING, "run directories", trouble, mend)
        return
    yield Finding(Verdict.OK, "run directories", f"{directory.absolute()} can be written")
    free = free_space(directory)
    short = free < LEAST_DISK
    mend = "make room, or give --run-dir on another disk" if short else ""
    yield Finding(Verdict.LOOK if short else Verdict.OK, "free disk", byte_size(free), mend)


def _cannot_write(folder: Path) -> str:
    """Why a file could not be made in a folder, or in the one where it would be made; empty if it could."""
    existing = nearest_existing(folder)
    try:
        with tempfile.TemporaryFile(dir=existing):
            return ""
    except OSError as error:
        return f"{existing} cannot be written ({error.strerror or error})"
