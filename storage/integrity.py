"""Is a run directory sound? Every file that a finished piece of work vouches for: present, or whole to the byte."""

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import yaml

from storage.errors import StorageError
from storage.files import digest_of_file, digest_of_json, files_with_content
from storage.layout import RunLayout
from storage.manifests import Provenance, read_manifest

WORKERS = 8
# The dataset's own metadata: laid out by the first of these pieces, annotated by the second.
DATASET_PIECES = ("noise", "dataset")

Broken = dict[str | None, list[str]]
"""Broken files by the piece that they belong to, as in `Fault`."""


@dataclass(frozen=True)
class Fault:
    """Something broken.

    Attributes:
        piece: The piece of work to make anew, or None if it is about the run directory itself.
        files: What of it is missing or damaged, relative to the run directory.
    """

    piece: str | None
    files: tuple[str, ...]


@dataclass(frozen=True)
class Verification:
    """What a check found.

    Attributes:
        files: How many files were checked.
        faults: What is broken; empty for a sound directory.
    """

    files: int
    faults: tuple[Fault, ...]


def verify_run(layout: RunLayout, progress: Callable[[int, int, dict[str, float]], None]) -> Verification:
    """Compare every file of every finished piece with its checksum, in parallel.

    An object of the dataset that has the SHA-256 of its manifest has sound checksums of its own too: it was read back
    before that was taken. What belongs to unfinished work is not judged.

    Args:
        layout: The run directory.
        progress: Called as progress(done, total, {}) after every file.
    """
    expected, broken = _read_manifests(layout)
    checks = [(piece, name, digest) for piece, files in expected.items() for name, digest in files.items()]
    with ThreadPoolExecutor(WORKERS) as pool:
        verdicts = pool.map(lambda check: is_sound(layout.root / check[1], check[2]), checks)
        for done, ((piece, name, _), sound) in enumerate(zip(checks, verdicts, strict=True), start=1):
            if not sound:
                broken.setdefault(piece, []).append(name)
            progress(done, len(checks), {})
    _judge_dataset(layout, expected, broken)
    if own := list(_own_faults(layout)):
        broken[None] = own
    return Verification(len(checks) + len(expected), _faults(broken))


def take_stock(layout: RunLayout) -> Verification:
    """Which finished pieces lack a file: one listing of the run directory, whatever the files hold.

    Beside the manifests, only the dataset's own metadata are read: without them there is no dataset. Of all else,
    damage is found when it is read, or by `verify_run`.

    Args:
        layout: The run directory.
    """
    expected, broken = _read_manifests(layout)
    there = files_with_content(layout.root)
    for piece, files in expected.items():
        if absent := [name for name in files if name not in there]:
            broken[piece] = absent
    layers = expected.get(DATASET_PIECES[0], {})
    for name in (name for name, digest in layers.items() if not is_sound(layout.root / name, digest)):
        broken.setdefault(DATASET_PIECES[0], []).append(name)
    _judge_dataset(layout, expected, broken)
    return Verification(sum(map(len, expected.values())) + len(expected), _faults(broken))


def forget(layout: RunLayout, verification: Verification) -> None:
    """Remove the manifests of broken pieces, so that they count as not done."""
    for fault in verification.faults:
        if fault.piece is not None:
            layout.manifest(fault.piece).unlink(missing_ok=True)


def config_digest(path: Path) -> str | None:
    """Digest of a config file's values as manifest.json records it, or None if it is missing or no YAML."""
    try:
        return digest_of_json(yaml.safe_load(path.read_bytes()))
    except (FileNotFoundError, yaml.YAMLError, UnicodeDecodeError, TypeError, ValueError):
        return None


def is_sound(path: Path, digest: str) -> bool:
    """Whether a file is there and has a SHA-256.

    Raises:
        OSError: If it may not be read, or its store cannot be reached, which says nothing of the file.
    """
    try:
        return path.is_file() and digest_of_file(path) == digest
    except (PermissionError, ConnectionError, TimeoutError):
        raise
    except OSError:
        return False


def _read_manifests(layout: RunLayout) -> tuple[dict[str, dict[str, str]], Broken]:
    """The files with their digests that each finished piece vouches for, and the manifests that cannot be read."""
    expected: dict[str, dict[str, str]] = {}
    broken: Broken = {}
    for path in layout.manifests():
        manifest = read_manifest(path)
        if manifest is None or manifest.piece != path.stem:
            broken[path.stem] = [str(path.relative_to(layout.root))]
        else:
            expected[path.stem] = manifest.files
    return expected, broken


def _judge_dataset(layout: RunLayout, expected: Mapping[str, object], broken: Broken) -> None:
    """Add the dataset's own metadata to what is broken, if they are."""
    from storage.dataset import METADATA, SyntheticStore  # Zarr and PyTorch, which nothing else here needs.

    try:
        SyntheticStore.open(layout.dataset)
    except StorageError:
        for piece in DATASET_PIECES:
            if piece in expected:
                broken.setdefault(piece, []).append(str(layout.dataset.relative_to(layout.root) / METADATA))


def _faults(broken: Broken) -> tuple[Fault, ...]:
    return tuple(Fault(piece, tuple(dict.fromkeys(files))) for piece, files in broken.items())


def _own_faults(layout: RunLayout) -> Iterator[str]:
    """Which of manifest.json and config.yaml is broken; without the one, the other is not judged beyond its syntax."""
    config = config_digest(layout.config)
    try:
        known = Provenance.read(layout.provenance).config
    except StorageError:
        known = config
        yield layout.provenance.name
    if config is None or config != known:
        yield layout.config.name
