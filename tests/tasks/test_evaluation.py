"""The judgement of what a run has made."""

from dataclasses import dataclass
from typing import Any

import pytest

from flows.config_file import read_config
from nas_core.evaluation.data import LabelledImages
from storage.files import read_json
from tasks.run import Run, open_run
from tasks.stage import Stage
from tests.tasks.conftest import PROJECT, TINY

DIGITS = PROJECT / "examples" / "digits"
TEACHER = (
    "teacher={name: checkpoint, factory: 'doubles:Particular', input_shape: [1, 8, 8], mean: [0.3059], std: [0.3758], "
    f"class_names: ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9'], flip_invariant: false, "
    f"weights: {DIGITS / 'teacher.safetensors'}}}"
)


@dataclass(frozen=True)
class Judged:
    """A run that real images judge.

    Attributes:
        run: The run.
        readers: Stages that made or read real images, by the method that they called.
    """

    run: Run
    readers: dict[str, set[str]]


@pytest.fixture(scope="module")
def judged(complete, tmp_path_factory: pytest.TempPathFactory) -> Judged:
    """The finished run made again, with real images, by a teacher of the same weights whose code looks at values."""
    data = f"evaluation.data={{name: npz, path: {DIGITS / 'held_out.npz'}}}"
    config = read_config(PROJECT / "configs" / "digits.yaml", (*TINY, TEACHER, data))
    run = open_run(config, str(tmp_path_factory.mktemp("judged") / "run"))
    readers: dict[str, set[str]] = {"__post_init__": set(), "batches": set()}
    begun: list[str] = []
    work_of = Stage.work.fget

    def work(stage: Stage) -> Any:
        begun.append(stage.name)
        return work_of(stage)

    def noted(name: str) -> Any:
        method = getattr(LabelledImages, name)

        def call(*arguments: Any) -> Any:
            readers[name].add(begun[-1])
            return method(*arguments)

        return call

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Stage, "work", property(work))
        for name in readers:
            patch.setattr(LabelledImages, name, noted(name))
        complete(run)
    return Judged(run, readers)


def test_a_run_ends_well_with_a_teacher_whose_code_looks_at_values(finished: Run, judged: Judged):
    theirs, ours = (read_json(run.layout.results)["teacher"] for run in (finished, judged.run))
    assert ours["macs"] == theirs["macs"] > 0
    assert ours["params"] == theirs["params"]


def test_real_images_are_held_by_the_last_judgement_alone(judged: Judged):
    assert judged.readers == {"__post_init__": {"evaluate"}, "batches": {"evaluate"}}


def test_real_images_change_neither_the_synthetic_ones_nor_the_search_nor_the_student(finished: Run, judged: Judged):
    """Without them, dataset, architecture and weights are the same to the byte."""
    without, beside = (read_json(run.layout.results) for run in (finished, judged.run))
    assert (without["evaluation"]["images"], beside["evaluation"]["images"]) == (0, 500)
    assert beside["digests"] == without["digests"]
    assert beside["digests"].keys() == {"dataset", "search", "model"}
    assert without["student"]["top1"] is None
    assert beside["student"]["agreement"] == without["student"]["agreement"]
