"""A whole run in seconds, stage by stage, without Prefect's engine or server."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from prefect.logging import disable_run_logger

from flows.config_file import read_config
from storage.manifests import Manifest
from tasks.grid import grid_points
from tasks.run import Run, open_run, working_in
from tasks.stage import Stage
from tasks.stages import (
    commit_dataset,
    evaluate_student,
    finetune_student,
    initialise_noise,
    keep_latency_table,
    learn_engine,
    measure_latency,
    requested,
    retrain_architecture,
    search_architecture,
    search_point,
    synthesize,
    write_report,
)
from tasks.verification import forget_missing

PROJECT = Path(__file__).parents[2]
TINY = (
    "name=tiny", "synthesis.rounds=2", "synthesis.shards=2", "synthesis.batch_size=8", "synthesis.labels.windows=1",
    "synthesis.engine.stages=[{iterations: 5}]", "synthesis.engine.warmup=1",
    "search.space={name: nasbench201, channels: 2, cells: 1}", "search.batch_size=8",
    "search.strategy={name: darts, epochs: 1}", "search.max_macs=null",
    "retrain={epochs: 1, warmup_epochs: 0, batch_size: 8}", "evaluation.data=null",
    f"teacher.weights={PROJECT / 'examples' / 'digits' / 'teacher.safetensors'}",
)  # fmt: skip


def perform(run: Run) -> dict[str, Manifest]:
    """What the flow does, in its order: take stock, then all stages; what is done is not done again."""

    def piece(stage: Stage, *upstream: Any, **position: int) -> Manifest:
        return stage.task.fn(run=run, upstream=list(upstream), position=position)

    with disable_run_logger(), working_in(run):
        forget_missing.fn(run)
        first = piece(initialise_noise)
        learned = [piece(learn_engine, first)] if run.config.synthesis.engine.learns else []
        start = (learned or [first])[0]
        images = {(-1, shard): start for shard in range(run.config.synthesis.shards)}
        for round_ in range(run.config.synthesis.rounds):
            for shard in range(run.config.synthesis.shards):
                images[round_, shard] = piece(synthesize, images[round_ - 1, shard], round=round_, shard=shard)
        shard_rounds = [manifest for (round_, _), manifest in images.items() if round_ >= 0]
        dataset = piece(commit_dataset, shard_rounds)
        costs = [piece(keep_latency_table)] if run.config.search.latency_table else []
        points = [piece(search_point, dataset, costs, point=i) for i in range(grid_points(run.config))]
        found = piece(search_architecture, dataset, costs, points)
        model = piece(retrain_architecture, dataset, found)
        others = [piece(training, dataset, found) for training in requested(run)]
        if run.config.finetune is not None:
            others.append(piece(finetune_student, model))
        judgement = piece(evaluate_student, dataset, model, others)
        latency = piece(measure_latency, model)
        before = [start, dataset, found, model, judgement, latency]
        report = piece(write_report, before, shard_rounds)
    searched = [first, *learned, dataset, *costs, *points, found]
    return {m.piece: m for m in [*images.values(), *searched, model, *others, judgement, latency, report]}


@pytest.fixture(scope="session")
def complete() -> Callable[[Run], dict[str, Manifest]]:
    """Brings a run to its end; see `perform`."""
    return perform


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished tiny run; tests must not change it."""
    config = read_config(PROJECT / "configs" / "digits.yaml", TINY)
    run = open_run(config, str(tmp_path_factory.mktemp("tiny") / "run"))
    perform(run)
    return run


@pytest.fixture
def damageable(finished: Run, tmp_path: Path) -> Run:
    """A copy of it that a test may damage."""
    shutil.copytree(finished.directory, tmp_path / "run")
    return finished.model_copy(update={"directory": str(tmp_path / "run")})
