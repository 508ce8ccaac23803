"""From a config to the objects that it describes, and whether they go together.

Whoever imports this holds PyTorch; a process that only conducts a run does not.
"""

import functools
import json
from pathlib import Path

from nas_core.baselines import check_baselines
from nas_core.config import RunConfig
from nas_core.device import resolve_device
from nas_core.errors import InputError
from nas_core.evaluation.dataset_quality import check_verifier
from nas_core.memory import canvas_bytes, check_memory
from nas_core.registry import Spec
from nas_core.search_spaces import SearchSpace, spaces
from nas_core.search_spaces.lookup import AccuracyTable
from nas_core.settings.spaces import ScalableSpec
from nas_core.settings.synthesis import ImportedSpec
from nas_core.strategies import Budget, make_budget, strategies
from nas_core.synthesis.build import check_synthesis
from nas_core.synthesis.config import SynthesisConfig
from nas_core.teachers import Teacher, teachers
from nas_core.training.retraining import check_retraining
from storage.dataset import DatasetLayout
from storage.errors import StorageError
from storage.files import digest_of_json
from storage.imports import open_images
from tasks.execution import check_execution
from tasks.real_data import check_real_data
from tasks.run import Checked


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
    """The true accuracies that a config names, for the report only; read once per process, as that may take minutes."""
    named = config.evaluation.table
    if named is None:
        return None
    written = named.path.stat().st_mtime_ns if named.path.exists() else None
    return _table(named.path, named.column, written)


@functools.lru_cache(maxsize=1)
def _table(path: Path, column: str, _written: int | None) -> AccuracyTable:
    return AccuracyTable.read(path, column)


def preflight(config: RunConfig) -> Checked:
    """Find what would make the run fail, in seconds and without writing anything.

    Raises:
        InputError: With one sentence about the first thing that is wrong.
    """
    resolve_device(config.device)
    check_execution(config.execution, config.device)
    teacher = _load(config.teacher.model_dump_json(), config.device)
    verifier = load_verifier(config)
    sources = {}
    if verifier is not None:
        check_verifier(verifier, teacher)
        sources["evaluation.verifier"] = verifier.fingerprint()
    check_synthesis(teacher, config.synthesis)
    _check_imported(config.synthesis, teacher)
    check_memory(teacher, config.synthesis, config.execution.shards_at_once())
    spec, retrain = config.search.space, config.retrain
    space = build_space(spec, teacher)
    strategies.build(config.search.strategy).check(space, build_budget(config))
    check_baselines(config.baselines, teacher)
    check_retraining(space, build_space(spec.scaled(retrain.width, retrain.cells), teacher), retrain)
    table = accuracy_table(config)
    if table is not None:
        table.check_covers(space)
        sources["evaluation.table"] = digest_of_json(table.accuracies)
    sources |= check_real_data(config, teacher)
    return Checked(teacher=teacher.fingerprint(), sources=sources, canvas_bytes=canvas_bytes(teacher, config.synthesis))


def dataset_layout(config: SynthesisConfig, teacher: Teacher) -> DatasetLayout:
    """Sizes of the dataset that a synthesis fills."""
    canvas = (teacher.input_shape[0], *config.canvas_size(teacher.input_shape))
    return DatasetLayout(config.rounds, config.shards, config.batch_size, canvas, teacher.num_classes)


def _check_imported(config: SynthesisConfig, teacher: Teacher) -> None:
    """Refuse sizes that are not those of the images to import.

    A folder that is gone, or holds other images by now, is no matter here: a shard that still needs it says so.
    """
    spec = config.engine
    if not isinstance(spec, ImportedSpec):
        return
    try:
        images = open_images(spec.path)
    except StorageError:
        return
    if images.listing == spec.listing and not images.holds(dataset_layout(config, teacher)):
        canvas = "x".join(map(str, config.canvas_size(teacher.input_shape)))
        raise InputError(
            f"the images in {spec.path} do not make {config.rounds} rounds of {config.shards} shards of "
            f"{config.batch_size} canvases of {canvas}: keep the sizes that `dfnas import-dataset` writes"
        )


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


def same_teacher(spec: Spec, device: str, fingerprint: str, kind: str = "teacher") -> Teacher:
    """The teacher, or verifier, that a run began with, on a device; loaded and compared once per process.

    Raises:
        InputError: If it cannot be loaded, or is another one by now.
    """
    return _load_same(spec.model_dump_json(), device, fingerprint, kind)


@functools.lru_cache(maxsize=4)
def _load_same(spec_json: str, device: str, fingerprint: str, kind: str) -> Teacher:
    teacher = _load(spec_json, device)
    if (found := teacher.fingerprint()) != fingerprint:
        raise InputError(
            f"the {kind}'s weights are not those that the run began with (fingerprint {fingerprint[:12]}, here "
            f"{found[:12]}): restore them, or choose another --run-dir"
        )
    return teacher


@functools.lru_cache(maxsize=4)
def _load(spec_json: str, device: str) -> Teacher:
    values = json.loads(spec_json)
    spec = teachers.spec(values["name"]).model_validate(values)
    return teachers.build(spec).to(resolve_device(device))
