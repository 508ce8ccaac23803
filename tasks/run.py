"""A run: its config, its directory and its teacher, checked before anything expensive starts."""

import importlib.metadata
import logging
import platform
import shlex
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from prefect import task
from prefect.cache_policies import NO_CACHE
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from nas_core.config import RunConfig, flatten
from nas_core.errors import InputError
from nas_core.execution import Execution, ExecutionSpec, Local
from nas_core.reporting.wording import byte_size, command
from nas_core.settings.spaces import ScalableSpec
from nas_core.settings.synthesis import ImportedSpec
from nas_core.synthesis.config import SynthesisConfig
from storage.errors import InUseError, StorageError
from storage.files import digest_of_json, exclusive, free_space, refuse_outside_links, remove_leftovers, write_bytes
from storage.integrity import config_digest
from storage.layout import RunLayout
from storage.locations import is_remote, location, reach
from storage.manifests import Provenance
from tasks.reuse import check_reusable, differences

logger = logging.getLogger(__name__)

if TYPE_CHECKING:
    from nas_core.search_spaces import SearchSpace
    from nas_core.strategies import Budget
    from nas_core.teachers import Teacher


class Checked(BaseModel):
    """What `preflight` read of all that a config names, told by its content.

    Attributes:
        teacher: The teacher's fingerprint.
        sources: Digests of verifier, real images and table of accuracies, as far as there are any, by their key in the
            config.
        canvas_bytes: Size of a canvas, in bytes.
    """

    model_config = ConfigDict(frozen=True)

    teacher: str
    sources: dict[str, str]
    canvas_bytes: int


class Run(BaseModel):
    """What every task is given.

    Its objects are built by `tasks.building`, which brings PyTorch along when one is asked for.

    Attributes:
        directory: The run directory.
        config: The config as resolved.
        fingerprint: The teacher's.
        sources: See `Checked`; empty for those who only look at a run.
        reuse: Directory of another run, of which pieces that this one would make alike are taken over; None: all are
            made here.
    """

    model_config = ConfigDict(frozen=True)

    directory: str
    config: RunConfig
    fingerprint: str
    sources: dict[str, str] = {}
    reuse: str | None = None

    @property
    def layout(self) -> RunLayout:
        """Paths of the run directory."""
        return RunLayout(location(self.directory))

    @property
    def reused(self) -> RunLayout | None:
        """Paths of the other run's directory."""
        return None if self.reuse is None else RunLayout(location(self.reuse))

    @property
    def teacher_name(self) -> str:
        """What the teacher is called: its network or the factory of it, and where that comes from."""
        spec = self.config.teacher.model_dump()
        return f"{spec.get('network') or spec.get('factory')} ({spec['name']})"

    def artifact(self, part: str = "") -> str:
        """Key in Prefect of what the run shows there: of its result, or of a part."""
        return "-".join(filter(None, ["dfnas", self.config.name, part]))

    def teacher(self) -> "Teacher":
        """The teacher on the run's device.

        Raises:
            InputError: If it is another one by now, or on this machine.
        """
        from tasks import building

        return building.same_teacher(self.config.teacher, self.config.device, self.fingerprint)

    def verifier(self) -> "Teacher | None":
        """The other classifier that judges the images, on the run's device.

        Raises:
            InputError: As `teacher`.
        """
        from tasks import building

        named, known = self.config.evaluation.verifier, self.sources.get("evaluation.verifier")
        if named is None or known is None:
            return building.load_verifier(self.config)
        return building.same_teacher(named, self.config.device, known, "verifier")

    def budget(self) -> "Budget":
        """What the search limits, with the latencies that the run was started with."""
        from tasks import building

        return building.build_budget(self.config, self.layout.latency_table)

    def space(self) -> "SearchSpace":
        """The search space for the teacher's images and classes."""
        from tasks import building

        return building.build_space(self.config.search.space, self.teacher())

    def retrain_space(self) -> "SearchSpace":
        """The same with the sizes of retraining."""
        from tasks import building

        return building.build_space(self.retrain_space_spec, self.teacher())

    @property
    def retrain_space_spec(self) -> ScalableSpec:
        """Settings of the space with the sizes of retraining."""
        return self.config.search.space.scaled(self.config.retrain.width, self.config.retrain.cells)


def run_layout(config: RunConfig, directory: str | None = None) -> RunLayout:
    """Paths of a config's run directory; by default `runs/<name>`."""
    return _reached(directory or Path("runs") / config.name)


@task(name="check", task_run_name="check config", cache_policy=NO_CACHE, tags=["dfnas"])
def check_config(config: RunConfig) -> Checked:
    """Load the teacher, and check that everything in the config fits it.

    Raises:
        InputError: With one sentence about the first thing that is wrong.
    """
    from tasks.building import preflight

    return preflight(config)


def open_run(
    config: RunConfig, directory: str | None = None, checked: Checked | None = None, reuse: str | None = None
) -> Run:
    """Check the config and open its run directory, new or to be resumed.

    Args:
        config: What to run.
        directory: Where: a folder, or the URL of a prefix in an object store; by default `runs/<name>`.
        checked: What `preflight` said, if the config has passed it already; None: it does so here.
        reuse: Directory of another run to take pieces over from, or its URL.

    Raises:
        InputError: If the config is wrong, or the directory is in use, cannot be written, is too full, or belongs to
            another config or teacher; or if the run to reuse has other images. Says what differs.
    """
    layout = run_layout(config, directory)
    known = refuse_other_run(layout, config)
    other = None if reuse is None else load_run(reuse)
    found = checked or check_config.fn(config)
    run = Run(
        directory=str(layout.root),
        config=config,
        fingerprint=found.teacher,
        sources=found.sources,
        reuse=other and other.directory,
    )
    if other is not None:
        check_reusable(run, other)
    if known is not None and known.teacher != run.fingerprint:
        raise InputError(
            f"{layout.root} was made with another teacher (fingerprint {known.teacher[:12]}, now "
            f"{run.fingerprint[:12]}): choose another --run-dir, or restore the weights"
        )
    if known is not None:
        _warn_of_other_versions(known)
    _refuse_full_disk(layout, config.synthesis, found.canvas_bytes)
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


def refuse_other_run(layout: RunLayout, config: RunConfig) -> Provenance | None:
    """Refuse a directory that holds something else than a run, or a run under another config.

    A damaged config.yaml or manifest.json is no obstacle as long as the other one vouches for the config.

    Returns:
        The directory's manifest.json; None if there is none to be trusted.

    Raises:
        InputError: Naming every field that differs, the files that would have to be restored, or what else is there.
    """
    _refuse_other_content(layout)
    ours = config.content()
    try:
        known = Provenance.read(layout.provenance)
    except StorageError:
        known = None
    if known is not None and known.config == digest_of_json(ours):
        return known
    there = _values_in(layout.config)
    if known is None and there is None:
        return None  # Nobody vouches for the config; what is done is still told by each piece's key.
    if there is None or (known is not None and known.config != config_digest(layout.config)):
        raise InputError(
            f"{layout.config} is missing or damaged: give the config that the run was started with, which restores "
            "it, or choose another --run-dir"
        )
    there = _completed(there)
    if changes := differences(flatten(there), flatten(ours)):
        same_images = all(there.get(name) == ours[name] for name in ("seed", "teacher", "synthesis"))
        reuse = f"; with --reuse {shlex.quote(str(layout.root))} it takes over what stays the same"
        hint = reuse if same_images else ""
        raise InputError(f"{layout.root} holds a run of another config ({changes}): choose another --run-dir{hint}")
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
    except (FileNotFoundError, yaml.YAMLError, ValueError):
        return None
    return values if isinstance(values, dict) else None


def _refuse_other_content(layout: RunLayout) -> None:
    """Refuse a directory that holds something else than a run, or links that lead out of it."""
    if not layout.root.exists():
        return
    if not layout.root.is_dir():
        raise InputError(f"{layout.root} is no directory: choose another --run-dir")
    # The log alone is a run that did not come to its directory.
    visible = [path.name for path in layout.root.iterdir() if not path.name.startswith(".") and path != layout.log]
    if visible and not (layout.config.exists() or layout.provenance.exists()):
        raise InputError(f"{layout.root} holds other files ({visible[0]}) and no run: choose another --run-dir")
    try:
        refuse_outside_links(layout.root)
    except StorageError as error:
        raise InputError(str(error)) from error


def _reached(directory: str | Path) -> RunLayout:
    try:
        return RunLayout(reach(directory).absolute())
    except StorageError as error:
        raise InputError(str(error)) from error


def load_run(directory: str | Path) -> Run:
    """The run that a directory, or a URL, holds, without checking that its teacher can still be loaded.

    Raises:
        InputError: If the directory holds none, or what describes it is damaged.
    """
    layout = _reached(directory)
    if not layout.config.exists() or not layout.provenance.exists():
        raise InputError(f"{directory} is no run directory (it has no config.yaml and manifest.json)")
    _refuse_other_content(layout)
    known = Provenance.read(layout.provenance)
    if config_digest(layout.config) != known.config:
        raise InputError(
            f"{layout.config} is damaged (it differs from its digest in manifest.json): "
            f"{command('run', 'CONFIG', '--run-dir', directory)} with the config that the run was started with "
            "restores it"
        )
    values = {**(_values_in(layout.config) or {}), "execution": known.execution or Local()}
    try:
        config = RunConfig.model_validate(values)
    except ValidationError as error:
        wrong = error.errors()[0]
        where = ".".join(str(part) for part in wrong["loc"])
        raise InputError(
            f"{layout.config} was written by another version of dfnas, and this one refuses {where} "
            f"({wrong['msg']}): use that version"
        ) from error
    return Run(directory=str(layout.root), config=config, fingerprint=known.teacher)


def refuse_unfinished(run: Run, result: Path) -> None:
    """Refuse a run that has not written a file yet.

    Raises:
        InputError: If it is not there.
    """
    if not result.exists():
        raise InputError(
            f"{run.directory} is not finished (see {command('status', run.directory)}); `dfnas run` goes on from there"
        )


def last_execution(layout: RunLayout) -> Execution:
    """Where a run's shards ran last; one after the other, if that cannot be told."""
    try:
        return TypeAdapter(ExecutionSpec).validate_python(Provenance.read(layout.provenance).execution)
    except (StorageError, ValidationError):
        return Local()


def _refuse_full_disk(layout: RunLayout, config: SynthesisConfig, canvas_bytes: int) -> None:
    """Refuse a folder on whose disk the images that are still to be made find no room."""
    if is_remote(layout.root) or isinstance(config.engine, ImportedSpec):
        return  # Canvases that were made hardly compress, imported ones may.
    done = sum(path.name.startswith("synthesis-") for path in layout.manifests())
    needed = (config.rounds * config.shards - done) * config.batch_size * canvas_bytes
    free = free_space(layout.root)
    if needed > free:
        raise InputError(
            f"the images to be made take {byte_size(needed)}, and the disk of {layout.root} has {byte_size(free)} "
            "free: lower synthesis.shards, make room, or choose --run-dir on another disk"
        )


def _warn_of_other_versions(known: Provenance) -> None:
    """Say in the log with which other versions a run goes on than it began with."""
    for name, now in versions().items():
        if (then := known.versions.get(name, now)) != now:
            logger.warning(
                "the run began with %s %s and goes on with %s: what it makes from here on may be other bytes",
                name, then, now,
            )  # fmt: skip


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide what a run computes."""
    packages = ("dfnas", "torch", "torchvision", "prefect", "zarr", "numpy")
    return {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in packages}
