"""A run: its config, its directory and its teacher, checked before anything expensive starts."""

import functools
import importlib.metadata
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict

from nas_core.config import RunConfig, flatten
from nas_core.device import resolve_device
from nas_core.errors import InputError
from nas_core.evaluation.data import data_sources
from nas_core.search_spaces import SearchSpace, spaces
from nas_core.strategies import strategies
from nas_core.synthesis.checks import check_synthesis
from nas_core.teachers import Teacher, teachers
from storage.errors import InUseError
from storage.files import digest_of_json, exclusive, read_json, remove_leftovers, write_bytes, write_json
from storage.layout import RunLayout


class Run(BaseModel):
    """What every task is given.

    Attributes:
        directory: The run directory.
        config: The config as resolved.
        fingerprint: The teacher's.
    """

    model_config = ConfigDict(frozen=True)

    directory: str
    config: RunConfig
    fingerprint: str

    @property
    def layout(self) -> RunLayout:
        """Paths of the run directory."""
        return RunLayout(Path(self.directory))

    def teacher(self) -> Teacher:
        """The teacher on the run's device."""
        return _load_teacher(self.config.model_dump_json())

    def space(self) -> SearchSpace:
        """The search space for the teacher's images and classes."""
        return build_space(self.config, self.teacher())


def build_space(config: RunConfig, teacher: Teacher) -> SearchSpace:
    """The config's search space for a teacher's input shape and number of classes."""
    return spaces.build(config.search.space, input_shape=teacher.input_shape, num_classes=teacher.num_classes)


def preflight(config: RunConfig) -> str:
    """Find what would make the run fail, in seconds and without writing anything.

    Returns:
        The teacher's fingerprint.

    Raises:
        InputError: With one sentence about the first thing that is wrong.
    """
    resolve_device(config.device)
    teacher = _load_teacher(config.model_dump_json())
    check_synthesis(teacher, config.synthesis)
    strategies.build(config.search.strategy).check(build_space(config, teacher), config.search.max_macs)
    if config.evaluation.data is not None:
        data_sources.build(config.evaluation.data, teacher=teacher)
    return teacher.fingerprint()


def open_run(config: RunConfig, directory: str | None = None) -> Run:
    """Check the config and open its run directory, new or to be resumed.

    Args:
        config: What to run.
        directory: Where; by default `runs/<name>`.

    Raises:
        InputError: If the config is wrong, or the directory belongs to another config or teacher; says what differs.
    """
    layout = RunLayout(Path(directory or Path("runs") / config.name).absolute())
    refuse_other_config(layout, config)
    run = Run(directory=str(layout.root), config=config, fingerprint=preflight(config))
    provenance = {
        "config": digest_of_json(config.model_dump(mode="json")),
        "teacher": run.fingerprint,
        "seed": config.seed,
        "versions": versions(),
    }
    try:
        if layout.provenance.exists():
            known = read_json(layout.provenance)["teacher"]
            if known != run.fingerprint:
                raise InputError(
                    f"{layout.root} was made with another teacher (fingerprint {known[:12]}, now "
                    f"{run.fingerprint[:12]}): choose another --run-dir, or restore the weights"
                )
        else:
            write_bytes(layout.config, yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False).encode())
            write_json(layout.provenance, provenance)
    except OSError as error:
        raise InputError(f"cannot write to the run directory {layout.root}: {error.strerror or error}") from error
    return run


@contextmanager
def locked(run: Run) -> Iterator[None]:
    """Be the only process that works in the run's directory, and clear what killed ones left half-written.

    Raises:
        InputError: If another process works there.
    """
    try:
        with exclusive(run.layout.root):
            remove_leftovers(run.layout.root)
            yield
    except InUseError as error:
        raise InputError(str(error)) from error


def refuse_other_config(layout: RunLayout, config: RunConfig) -> None:
    """Refuse to continue a run under a changed config.

    Raises:
        InputError: Naming every field that differs.
    """
    if not layout.config.exists():
        return
    there = flatten(yaml.safe_load(layout.config.read_text()))
    ours = flatten(config.model_dump(mode="json"))
    differing = [name for name in sorted(there.keys() | ours.keys()) if there.get(name) != ours.get(name)]
    if differing:
        changes = "; ".join(f"{name}: {there.get(name)} there, {ours.get(name)} here" for name in differing)
        raise InputError(f"{layout.root} holds a run of another config ({changes}): choose another --run-dir")


def load_run(directory: Path) -> Run:
    """The run that a directory holds, without checking that its teacher can still be loaded.

    Raises:
        InputError: If the directory holds none.
    """
    layout = RunLayout(directory.absolute())
    if not layout.config.exists() or not layout.provenance.exists():
        raise InputError(f"{directory} is no run directory (it has no config.yaml and manifest.json)")
    config = RunConfig.model_validate(yaml.safe_load(layout.config.read_text()))
    return Run(directory=str(layout.root), config=config, fingerprint=read_json(layout.provenance)["teacher"])


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide what a run computes."""
    packages = ("dfnas", "torch", "torchvision", "prefect", "zarr", "numpy")
    return {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in packages}


@functools.lru_cache(maxsize=4)
def _load_teacher(config_json: str) -> Teacher:
    config = RunConfig.model_validate_json(config_json)
    return teachers.build(config.teacher).to(resolve_device(config.device))
