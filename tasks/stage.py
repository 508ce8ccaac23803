"""What makes every step cached, resumable and checked: a `Stage` around a function.

A step's *key* is the digest of all that its content depends on: the stage and its code version, the seed, the
teacher's fingerprint, the config sections that it reads and the content of the real data that they name, the digests of
what came before, and its position.
When the work is done its manifest (key, digest, files with checksums) is written last. The run directory is the
truth: a manifest with the same key whose files are sound means done. Prefect's cache, keyed alike, mirrors it.
"""

import errno
import importlib
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from prefect import Task, get_run_logger, task
from prefect.cache_policies import CachePolicy
from prefect.context import TaskRunContext
from prefect.futures import PrefectFuture
from prefect.task_runners import TaskRunner
from prefect.tasks import exponential_backoff

from nas_core.checkpoint import Checkpoint
from storage.files import digest_of_json
from storage.locations import is_outage
from storage.manifests import Manifest, digests_of_files, read_manifest
from tasks.execution import submit
from tasks.reuse import take_over
from tasks.run import Run
from tasks.stopping import STOP, raise_if_stopped, working
from tasks.verification import check_sources, forgetting_damage

LASTING_ERRORS = {
    errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOENT, errno.EISDIR, errno.ENOTDIR,
}  # fmt: skip


@dataclass(frozen=True)
class Product:
    """What the function of a stage returns.

    Attributes:
        digest: Digest of the content.
        files: The files that hold it.
        figures: A few numbers or words about it.
    """

    digest: str
    files: Sequence[Path]
    figures: dict[str, Any] = field(default_factory=dict)


Work = Callable[..., Product]
Result = Manifest | PrefectFuture[Manifest]


def is_transient(_task: Any, _run: Any, state: Any) -> bool:
    """Whether a failure may pass by itself: trouble with files or network, not bad input and not a bug.

    Of several at once, one such is enough: what is done is not done again.
    """
    error = state.result(raise_on_failure=False)
    errors = error.exceptions if isinstance(error, ExceptionGroup) else [error]
    return any((isinstance(one, OSError) and one.errno not in LASTING_ERRORS) or is_outage(one) for one in errors)


RETRIES: dict[str, Any] = {
    "retries": 2,
    "retry_delay_seconds": exponential_backoff(backoff_factor=2),
    "retry_jitter_factor": 0.5,
    "retry_condition_fn": is_transient,
}
"""How tasks are retried."""


class Stage:
    """A step of the pipeline; call `submit` in a flow.

    Args:
        name: First part of its pieces' names, and a tag of their runs in Prefect.
        work: Where its function is, as "module:function": work(run, piece, key, *upstream manifests, **position) ->
            Product. It is imported where the work is done.
        version: Version of the code behind it: raise it when the same inputs would give other content.
        sections: Config sections that the content depends on, dotted for a part of one.
        title: What its runs in Prefect are called; empty: the function's name in words.
        reusable: Whether its pieces may come from another run. Not where the work also changes files that no manifest
            has, such as the dataset's metadata.
    """

    def __init__(
        self,
        name: str,
        work: str,
        version: int,
        sections: tuple[str, ...] = (),
        title: str = "",
        *,
        reusable: bool = False,
    ) -> None:
        self.path = work
        self.words = title or work.partition(":")[2].replace("_", " ")
        self.name = name
        self.version = version
        self.sections = sections
        self.reusable = reusable
        self.task: Task[..., Manifest] = task(
            name=name,
            cache_policy=CachePolicy.from_cache_key_fn(self._cache_key),
            result_serializer="json",
            persist_result=True,
            **RETRIES,
        )(self.perform)

    def __reduce__(self) -> tuple[Callable[..., "Stage"], tuple[Any, ...]]:
        """For the way to another process: what it is made of."""
        rebuild = partial(Stage, reusable=self.reusable)
        return rebuild, (self.name, self.path, self.version, self.sections, self.words)

    @property
    def work(self) -> Work:
        """Its function, with what that imports."""
        module, _, function = self.path.partition(":")
        return getattr(importlib.import_module(module), function)

    def submit(
        self,
        run: Run,
        *upstream: Result | Sequence[Result],
        runner: TaskRunner[Any] | None = None,
        **position: int,
    ) -> PrefectFuture[Manifest]:
        """Schedule one piece of this stage.

        Args:
            run: The run.
            upstream: What it is made from: results of earlier stages, or their futures.
            runner: Task runner that places it; None: see `tasks.execution.conducting`.
            position: Which piece it is, such as round=1, shard=2.
        """
        done = run.layout.manifest(piece_name(self.name, position)).exists()
        title = self.title(position)
        rounds = [f"round-{position['round']}"] if "round" in position else []
        bound = self.task.with_options(
            # Both: until a run's inputs are there, Prefect shows the task's name with a random suffix.
            name=title,
            task_run_name=title,
            # None that only this piece has: Prefect keeps a client, of a megabyte, for each set of tags.
            tags=["dfnas", run.config.name, self.name, *rounds],
            result_storage=run.layout.cache,
            refresh_cache=not done,
        )
        parameters = {"run": run, "upstream": list(upstream), "position": position}
        return submit(bound, parameters, runner, done=lambda **known: self.found(**known) is not None)

    def title(self, position: dict[str, int]) -> str:
        """Name of a piece's run in Prefect, such as "synthesize round 2 shard 17"."""
        return " ".join([self.words, *(f"{axis} {number}" for axis, number in position.items())])

    def key(self, run: Run, upstream: list[Any], position: dict[str, int]) -> str:
        """Digest of all that a piece's content depends on."""
        settings = run.config.model_dump(mode="json")
        sources = {
            name: digest
            for name, digest in run.sources.items()
            if any(f"{name}.".startswith(f"{section}.") for section in self.sections)
        }
        return digest_of_json(
            {
                "stage": self.name,
                "version": self.version,
                "seed": run.config.seed,
                "teacher": run.fingerprint,
                "config": {section: _part(settings, section) for section in self.sections},
                **({"sources": sources} if sources else {}),
                "upstream": [[m.digest for m in u] if isinstance(u, list) else u.digest for u in upstream],
                "position": position,
            }
        )

    def _cache_key(self, _: TaskRunContext, parameters: dict[str, Any]) -> str:
        return f"{self.name}-{self.key(**parameters)}"

    def found(self, run: Run, upstream: list[Any], position: dict[str, int]) -> Manifest | None:
        """The manifest of a piece that the run directory has, made from the same; else None."""
        existing = read_manifest(run.layout.manifest(piece_name(self.name, position)))
        return existing if existing is not None and existing.key == self.key(run, upstream, position) else None

    @working()
    def perform(self, run: Run, upstream: list[Any], position: dict[str, int]) -> Manifest:
        """Do one piece of this stage, unless the run directory has it; call it in a task.

        Args:
            run: The run.
            upstream: Manifests of what it is made from.
            position: Which piece it is.

        Raises:
            StorageError: If that is damaged, which then counts as not done.
        """
        raise_if_stopped()
        logger = get_run_logger()
        # What the science says of itself, such as in which arithmetic a teacher runs, is part of the record.
        if (science := logging.getLogger("nas_core")).level == logging.NOTSET:
            science.setLevel(logging.INFO)
        piece, key = piece_name(self.name, position), self.key(run, upstream, position)
        path = run.layout.manifest(piece)
        if (existing := self.found(run, upstream, position)) is not None:
            logger.info("%s is in the run directory already", piece)
            return existing
        if self.reusable and run.reused and (taken := take_over(run.layout, run.reused, piece, key)) is not None:
            run.layout.checkpoint(piece).unlink(missing_ok=True)
            logger.info("%s is taken over from %s", piece, run.reuse)
            return taken
        logger.info("%s starts", piece)
        started = time.monotonic()
        with forgetting_damage(run.layout):
            check_sources(run.layout, _flattened(upstream))
            product = self.work(run, piece, key, *upstream, **position)
        seconds = time.monotonic() - started
        root = run.layout.root
        files = digests_of_files(root, list(product.files))
        manifest = Manifest(
            piece=piece, key=key, digest=product.digest, files=files, figures=product.figures, seconds=seconds
        )
        manifest.write(path)
        run.layout.checkpoint(piece).unlink(missing_ok=True)
        logger.info("%s done in %.1f s: %s", piece, seconds, product.figures)
        return manifest


def piece_name(name: str, position: dict[str, int]) -> str:
    """Name of a piece of work: the stage's, then its position, such as "synthesis-round-001-shard-00002"."""
    widths = {"round": 3, "shard": 5}
    return "-".join([name, *(f"{axis}-{number:0{widths.get(axis, 3)}d}" for axis, number in position.items())])


def round_figure(value: float | None) -> float | None:
    """A number for people to read: four significant digits."""
    return None if value is None else float(f"{value:.4g}")


def stage_checkpoint(run: Run, piece: str, key: str) -> Checkpoint:
    """The checkpoint of a piece of work: what an interrupted attempt at the same work saved, and where to save."""
    from storage.checkpoints import load_checkpoint, save_checkpoint  # With PyTorch, for those who compute.

    path = run.layout.checkpoint(piece)

    def save(state: dict[str, Any]) -> None:
        save_checkpoint(path, key, state)
        raise_if_stopped()

    return Checkpoint(load_checkpoint(path, key), save, urgent=STOP.is_set)


def _flattened(upstream: list[Any]) -> Iterator[Manifest]:
    for source in upstream:
        yield from source if isinstance(source, list) else [source]


def _part(settings: Any, section: str) -> Any:
    for key in section.split("."):
        settings = settings[key]
    return settings
