"""The pipeline: from a pretrained classifier, without data, to a searched and retrained network."""

from contextlib import ExitStack
from enum import StrEnum
from typing import Annotated, Any

from prefect import flow
from prefect.task_runners import ThreadPoolTaskRunner
from pydantic import Field

from nas_core.config import RunConfig
from tasks.execution import conducting, submit
from tasks.grid import search_points
from tasks.run import check_config, open_run, refuse_other_run, run_layout, working_in
from tasks.shards import synthesize_shards
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
    write_report,
)
from tasks.verification import forget_missing


class Goal(StrEnum):
    """How far to go; what came before is taken from the run directory or made on the way."""

    SYNTHESIS = "synthesis"
    SEARCH = "search"
    RETRAIN = "retrain"
    EVALUATE = "evaluate"
    REPORT = "report"


# One worker: a task uses all cores (or the device) by itself, and two at once mostly slow each other down. Shards and
# independent searches run side by side where `config.execution` says so.
@flow(  # type: ignore[call-overload]
    name="dfnas",
    flow_run_name="{config.name} until {until}",
    task_runner=ThreadPoolTaskRunner(max_workers=1),  # type: ignore[arg-type]
)
def dfnas(
    config: RunConfig,
    run_dir: Annotated[
        str | None, Field(description="run directory or its URL, new or to be resumed; null: runs/<name>")
    ] = None,
    until: Annotated[Goal, Field(description="last stage to run")] = Goal.REPORT,
    reuse: Annotated[
        str | None, Field(description="directory or URL of another run, to take over what this one would make alike")
    ] = None,
) -> dict[str, Any]:
    """Synthesise images from the teacher, search an architecture on them, retrain it, judge it, report.

    Every step is cached on its content: running again in the same directory resumes.

    Args:
        config: What to run.
        run_dir: Run directory, or its URL, new or to be resumed; none: `runs/<name>`.
        until: The last stage to run.
        reuse: Directory of another run with the same images, or its URL: pieces that would be made alike are copied.

    Returns:
        The figures of the last stage; of the whole pipeline, the content of `results.json`.
    """
    layout = run_layout(config, run_dir)
    refuse_other_run(layout, config)
    # The directory's lock is held until nothing works in it any more, however the run ends.
    with ExitStack() as held, conducting(config.execution, layout.log):
        run = open_run(config, run_dir, submit(check_config, {"config": config}).result(), reuse)
        held.enter_context(working_in(run))
        submit(forget_missing, {"run": run}).result()

        first = initialise_noise.submit(run)
        if config.synthesis.engine.learns:
            first = learn_engine.submit(run, first)
        shard_rounds = synthesize_shards(run, first.result())
        dataset = commit_dataset.submit(run, shard_rounds)
        if until is Goal.SYNTHESIS:
            return dataset.result().figures

        costs = [keep_latency_table.submit(run)] if config.search.latency_table else []
        points = search_points(run, dataset, costs)
        found = search_architecture.submit(run, dataset, costs, points)
        if until is Goal.SEARCH:
            return found.result().figures

        model = retrain_architecture.submit(run, dataset, found)
        if until is Goal.RETRAIN:
            return model.result().figures

        others = [training.submit(run, dataset, found) for training in requested(run)]
        if config.finetune is not None:
            others.append(finetune_student.submit(run, model))
        judgement = evaluate_student.submit(run, dataset, model, others)
        if until is Goal.EVALUATE:
            return judgement.result().figures

        latency = measure_latency.submit(run, model)
        stages = [first, dataset, found, model, judgement, latency]
        return write_report.submit(run, stages, shard_rounds).result().figures
