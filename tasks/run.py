"""A run: its config, its directory and its teacher, checked before anything expensive starts."""

import functools
import importlib.metadata
import json
import platform
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from nas_core.baselines import check_baselines
from nas_core.config import RunConfig, flatten
from nas_core.device import resolve_device
from nas_core.errors import InputError
from nas_core.evaluation.data import data_sources
from nas_core.evaluation.dataset_quality import check_verifier
from nas_core.execution import Execution, ExecutionSpec, Local
from nas_core.memory import check_memory
from nas_core.registry import Spec
from nas_core.search_spaces import SearchSpace, spaces
from nas_core.search_spaces.lookup import AccuracyTable
from nas_core.search_spaces.scaling import ScalableSpec
from nas_core.strategies import Budget, make_budget, strategies
from nas_core.synthesis.build import check_synthesis
from nas_core.teachers import Teacher, teachers
from nas_core.training.retraining import check_retraining
from storage.errors import InUseError, StorageError
from storage.files import digest_of_json, exclusive, refuse_outside_links, remove_leftovers, write_bytes
from storage.integrity import config_digest
from storage.layout import RunLayout
from storage.manifests import Provenance
from tasks.execution import check_execution


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

    @property
    def teacher_name(self) -> str:
        """What the teacher is called: its network or the factory of it, and where that comes from."""
        spec = self.config.teacher.model_dump()
        return f"{spec.get('network') or spec.get('factory')} ({spec['name']})"

    def artifact(self, part: str = "") -> str:
        """Key in Prefect of what the run shows there: of its result, or of a part."""
        return "-".join(filter(None, ["dfnas", self.config.name, part]))

    def teacher(self) -> Teacher:
        """The teacher on the run's device."""
        return _load(self.config.teacher.model_dump_json(), self.config.device)

    def verifier(self) -> Teacher | None:
        """The other classifier that judges the images, on the run's device."""
        return load_verifier(self.config)

    def budget(self) -> Budget:
        """What the search limits, with the latencies that the run was started with."""
        return build_budget(self.config, self.layout.latency_table)

    def space(self) -> SearchSpace:
        """The search space for the teacher's images and classes."""
        return build_space(self.config.search.space, self.teacher())

    def retrain_space(self) -> SearchSpace:
        """The same with the sizes of retraining."""
        return build_space(self.retrain_space_spec, self.teacher())

    @property
    def retrain_space_spec(self) -> ScalableSpec:
        """Settings of the space with the sizes of retraining."""
        return self.config.search.space.scaled(self.config.retrain.width, self.config.retrain.cells)


def build_space(spec: ScalableSpec, teacher: Teacher) -> SearchSpace:
    """A search space for a teacher's input shape and number of classes."""
    return spaces.build(spec, input_shape=teacher.input_shape, num_classes=teacher.num_classes)


def build_budget(config: RunConfig, latency_table: Path | None = None) -> Budget:
    """What the config limits, or weighs without a limit.

    Args:
        config: The run's.
        latency_table: Where to read latencies, if the config names a file of them; None: from that file.
    """
    search = config.search
    path = search.latency_table and (latency_table or search.latency_table)
    return make_budget(search.max_macs, search.max_parameters, search.max_latency_ms, path)


def accuracy_table(config: RunConfig) -> AccuracyTable | None:
    """The true accuracies that a config names, for the report only."""
    named = config.evaluation.table
    return None if named is None else AccuracyTable.read(named.path, named.column)


def preflight(config: RunConfig) -> str:
    """Find what would make the run fail, in seconds and without writing anything.

    Returns:
        The teacher's fingerprint.

    Raises:
        InputError: With one sentence about the first thing that is wrong.
    """
    resolve_device(config.device)
    check_execution(config.execution)
    teacher = _load(config.teacher.model_dump_json(), config.device)
    verifier = load_verifier(config)
    if verifier is not None:
        check_verifier(verifier, teacher)
    check_synthesis(teacher, config.synthesis)
    check_memory(teacher, config.synthesis, config.execution.shards_at_once())
    spec, retrain = config.search.space, config.retrain
    space = build_space(spec, teacher)
    strategies.build(config.search.strategy).check(space, build_budget(config))
    check_baselines(config.baselines, teacher)
    check_retraining(build_space(spec.scaled(retrain.width, retrain.cells), teacher), retrain)
    table = accuracy_table(config)
    if table is not None:
        table.check_covers(space)
    for section in (config.evaluation, config.finetune):
        if section is not None and section.data is not None:
            data_sources.build(section.data, teacher=teacher)
    return teacher.fingerprint()


def open_run(config: RunConfig, directory: str | None = None) -> Run:
    """Check the config and open its run directory, new or to be resumed.

    Args:
        config: What to run.
        directory: Where; by default `runs/<name>`.

    Raises:
        InputError: If the config is wrong, or the directory is in use, cannot be written, or belongs to another
            config or teacher; says what differs.
    """
    layout = RunLayout(Path(directory or Path("runs") / config.name).absolute())
    _refuse_other_content(layout)
    known = refuse_other_config(layout, config)
    run = Run(directory=str(layout.root), config=config, fingerprint=preflight(config))
    if known is not None and known.teacher != run.fingerprint:
        raise InputError(
            f"{layout.root} was made with another teacher (fingerprint {known.teacher[:12]}, now "
            f"{run.fingerprint[:12]}): choose another --run-dir, or restore the weights"
        )
    values = config.content()
    ours = known or Provenance(
        config=digest_of_json(values), teacher=run.fingerprint, seed=config.seed, versions=versions()
    )
    ours = ours.model_copy(update={"execution": config.execution.model_dump(mode="json")})
    with locked(layout.root):
        if config_digest(layout.config) != ours.config:
            write_bytes(layout.config, yaml.safe_dump(values, sort_keys=False).encode())
        if known != ours:
            ours.write(layout.provenance)
    return run


@contextmanager
def working_in(run: Run) -> Iterator[None]:
    """Be the only process that works in the run's directory, and clear what killed ones left half-written.

    Raises:
        InputError: If another process works there, or it cannot be written.
    """
    with locked(run.layout.root):
        remove_leftovers(run.layout.root)
        yield


@contextmanager
def locked(root: Path) -> Iterator[None]:
    """Be the only process that writes into a run directory.

    Raises:
        InputError: If another process works there, or it cannot be written.
    """
    with ExitStack() as held:
        try:
            held.enter_context(exclusive(root))
        except InUseError as error:
            raise InputError(str(error)) from error
        except OSError as error:
            raise InputError(f"cannot write to the run directory {root}: {error.strerror or error}") from error
        yield


def refuse_other_config(layout: RunLayout, config: RunConfig) -> Provenance | None:
    """Refuse to continue a run under a changed config.

    A damaged config.yaml or manifest.json is no obstacle as long as the other one vouches for the config.

    Returns:
        The directory's manifest.json; None if there is none to be trusted.

    Raises:
        InputError: Naming every field that differs, or the files that would have to be restored.
    """
    ours = config.content()
    try:
        known = Provenance.read(layout.provenance)
    except StorageError:
        known = None
    if known is not None and known.config == digest_of_json(ours):
        return known
    there = _values_in(layout.config)
    if known is None and there is None and not layout.config.exists():
        return None
    if there is None or (known is not None and known.config != config_digest(layout.config)):
        raise InputError(
            f"{layout.config} is missing or damaged: give the config that the run was started with, which restores "
            "it, or choose another --run-dir"
        )
    there, ours = flatten(_completed(there)), flatten(ours)
    differing = [name for name in sorted(there.keys() | ours.keys()) if there.get(name) != ours.get(name)]
    if differing:
        changes = "; ".join(f"{name}: {there.get(name)} there, {ours.get(name)} here" for name in differing)
        raise InputError(f"{layout.root} holds a run of another config ({changes}): choose another --run-dir")
    return known


def _completed(values: dict[str, Any]) -> dict[str, Any]:
    """A config of an earlier version, with today's defaults for settings that it did not have yet."""
    try:
        return RunConfig.model_validate(values).content()
    except ValidationError:
        return values


def _values_in(path: Path) -> dict[str, Any] | None:
    """The sections of a config file, or None if it is missing or damaged."""
    try:
        values = yaml.safe_load(path.read_bytes())
    except (FileNotFoundError, yaml.YAMLError, UnicodeDecodeError):
        return None
    return values if isinstance(values, dict) else None


def _refuse_other_content(layout: RunLayout) -> None:
    """Refuse a directory that holds something else than a run, or links that lead out of it."""
    if not layout.root.exists():
        return
    if not layout.root.is_dir():
        raise InputError(f"{layout.root} is no directory: choose another --run-dir")
    visible = [path.name for path in layout.root.iterdir() if not path.name.startswith(".")]
    if visible and not (layout.config.exists() or layout.provenance.exists()):
        raise InputError(f"{layout.root} holds other files ({visible[0]}) and no run: choose another --run-dir")
    try:
        refuse_outside_links(layout.root)
    except StorageError as error:
        raise InputError(str(error)) from error


def load_run(directory: Path) -> Run:
    """The run that a directory holds, without checking that its teacher can still be loaded.

    Raises:
        InputError: If the directory holds none, or what describes it is damaged.
    """
    layout = RunLayout(directory.absolute())
    if not layout.config.exists() or not layout.provenance.exists():
        raise InputError(f"{directory} is no run directory (it has no config.yaml and manifest.json)")
    _refuse_other_content(layout)
    known = Provenance.read(layout.provenance)
    if config_digest(layout.config) != known.config:
        raise InputError(
            f"{layout.config} is damaged (it differs from its digest in manifest.json): `dfnas run CONFIG --run-dir "
            f"{directory}` with the config that the run was started with restores it"
        )
    values = {**(_values_in(layout.config) or {}), "execution": known.execution or Local()}
    try:
        config = RunConfig.model_validate(values)
    except ValidationError as error:
        raise InputError(f"{layout.config} was written by another version of dfnas: use that one") from error
    return Run(directory=str(layout.root), config=config, fingerprint=known.teacher)


def last_execution(layout: RunLayout) -> Execution:
    """Where a run's shards ran last; one after the other, if that cannot be told."""
    try:
        return TypeAdapter(ExecutionSpec).validate_python(Provenance.read(layout.provenance).execution)
    except (StorageError, ValidationError):
        return Local()


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide what a run computes."""
    packages = ("dfnas", "torch", "torchvision", "prefect", "zarr", "numpy")
    return {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in packages}


def load_verifier(config: RunConfig) -> Teacher | None:
    """The verifier that a config names, on the run's device."""
    named = config.evaluation.verifier
    return None if named is None else _load(named.model_dump_json(), config.device)


def load_teacher(spec: Spec, device: str) -> Teacher:
    """The teacher of a config section on a device; loaded once per process.

    Raises:
        InputError: If it cannot be loaded, or the device is not there.
    """
    return _load(spec.model_dump_json(), device)


@functools.lru_cache(maxsize=4)
def _load(spec_json: str, device: str) -> Teacher:
    values = json.loads(spec_json)
    spec = teachers.spec(values["name"]).model_validate(values)
    return teachers.build(spec).to(resolve_device(device))
