"""Every stage of a run: what its content depends on, and where its function is.

Raise a stage's version when the same inputs would give other content. Nothing here imports the functions, so that a
process which only conducts a run holds neither PyTorch nor Zarr.
"""

from collections.abc import Sequence
from typing import get_args

from nas_core.config import Baseline
from tasks.run import Run
from tasks.stage import Stage

initialise_noise = Stage("noise", "tasks.synthesis:initialise_noise", version=1, sections=("synthesis",))
learn_engine = Stage("learn", "tasks.synthesis:learn_engine", version=3, sections=("synthesis",), reusable=True)
synthesize = Stage("synthesis", "tasks.synthesis:synthesize", version=6, sections=("synthesis",), reusable=True)
commit_dataset = Stage("dataset", "tasks.synthesis:commit_dataset", version=4, sections=("evaluation.verifier",))
keep_latency_table = Stage("costs", "tasks.latency:keep_latency_table", version=1, sections=("search.latency_table",))
search_point = Stage(
    "grid", "tasks.search:search_point", version=6, sections=("search", "evaluation.held_out"), reusable=True
)
search_architecture = Stage(
    "search", "tasks.search:search_architecture", version=8, sections=("search", "evaluation.held_out"), reusable=True
)
retrain_architecture = Stage(
    "retrain",
    "tasks.retrain:retrain_architecture",
    version=4,
    sections=("search", "retrain", "evaluation.held_out"),
    reusable=True,
)
finetune_student = Stage(
    "finetune", "tasks.finetune:finetune_student", version=2, sections=("finetune",), reusable=True
)
evaluate_student = Stage(
    "evaluate", "tasks.evaluation:evaluate_student", version=4, sections=("evaluation", "search.validation_fraction")
)
measure_latency = Stage("latency", "tasks.latency:measure_latency", version=1, sections=("evaluation.latency_batch",))
write_report = Stage(
    "report",
    "tasks.report:write_report",
    version=6,
    sections=("name", "synthesis", "search", "retrain", "baselines", "finetune", "evaluation"),
)

TRAINING: dict[Baseline, Stage] = {
    kind: Stage(
        f"baseline-{kind}",
        "tasks.baselines:train_baseline",
        version=5 if kind == "random" else 2,
        sections=("search", "retrain", "evaluation.held_out"),
        title=f"train baseline {kind}",
        reusable=True,
    )
    for kind in get_args(Baseline)
}


def requested(run: Run) -> Sequence[Stage]:
    """The stages of the baselines that a run asks for, in its order."""
    return [TRAINING[kind] for kind in run.config.baselines]
