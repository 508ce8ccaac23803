"""An estimate measures the pace of real steps and multiplies it by what the config asks for."""

from pathlib import Path

import pytest
import torch

from flows.config_file import read_config
from nas_core import estimation
from nas_core.estimation import estimate
from nas_core.evaluation.data import LabelledImages
from nas_core.memory import shard_bytes
from nas_core.search_spaces import spaces
from nas_core.teachers import Teacher, teachers

PROJECT = Path(__file__).parents[2]
SMALL = [
    f"teacher.weights={PROJECT / 'examples' / 'digits' / 'teacher.safetensors'}",
    "synthesis.batch_size=8",
    "search.space={name: nasbench201, channels: 2, cells: 1}",
    "search.batch_size=8",
    "search.max_macs=null",
    "retrain.batch_size=8",
]


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch):
    """A few steps are enough to see that they are measured."""
    monkeypatch.setattr(estimation, "PATIENCE", 0.05)


def real(count: int, teacher: Teacher) -> LabelledImages | None:
    """So many black images; None for none."""
    if not count:
        return None
    image = torch.zeros(teacher.input_shape, dtype=torch.uint8)
    return LabelledImages("real ones", torch.zeros(count, dtype=torch.long), lambda _: image, teacher)


def estimate_of(*settings: str, learned: int = 0, judging: int = 0) -> estimation.Estimate:
    config = read_config(PROJECT / "configs" / "digits.yaml", [*SMALL, *settings])
    teacher = teachers.build(config.teacher)
    space = spaces.build(config.search.space, input_shape=teacher.input_shape, num_classes=teacher.num_classes)
    found = estimate(config, teacher, space, real(learned, teacher), real(judging, teacher))
    assert found.memory > shard_bytes(teacher, config.synthesis)
    return found


@pytest.mark.parametrize(
    "setting",
    [
        "search.strategy.epochs=2",
        "search.strategy.training_free={scores: [naswot], images: 8}",
        "search.strategy={name: darts, epochs: 3}",
        "search.strategy={name: random, architectures: 2, epochs: 2}",
        "synthesis.engine={name: generator, steps: 40, warmup: 2, width: 4, latent: 8}",
    ],
)
def test_every_stage_is_measured(setting: str):
    found = estimate_of(setting)
    assert set(found.seconds) == {"synthesis", "search", "retraining", "evaluation"}
    assert all(seconds > 0 for seconds in found.seconds.values())


def test_baselines_take_as_long_as_the_student():
    found = estimate_of("search.strategy={name: darts, epochs: 3}", "baselines=[random, handmade]", "retrain.width=2")
    assert found.seconds["baselines"] == 2 * found.seconds["retraining"]


def test_fine_tuning_takes_what_retraining_takes_for_as_many_images():
    config = read_config(PROJECT / "configs" / "digits.yaml", [*SMALL, "retrain.epochs=20"])
    seen = config.split.validation + config.split.train
    finetune = "finetune={epochs: 10, data: {name: npz, path: real.npz}}"
    found = estimate_of("retrain.epochs=20", finetune, learned=seen)
    assert found.seconds["finetuning"] == pytest.approx(found.seconds["retraining"] / 2)
    assert seen < config.synthesis.images


@pytest.mark.parametrize(("settings", "networks"), [((), 2), (("baselines=[random, handmade]",), 4)])
def test_real_images_are_read_and_classified_once_per_network(
    settings: tuple[str, ...], networks: int, monkeypatch: pytest.MonkeyPatch
):
    """Reading 16 takes one tick of the clock, as does every batch that the teacher's pace is taken from."""

    def seconds(count: int) -> float:
        monkeypatch.setattr(estimation, "time", Clock())
        return estimate_of("search.strategy={name: darts, epochs: 1}", *settings, judging=count).seconds["evaluation"]

    without, few, many = seconds(0), seconds(100), seconds(1000)
    assert few > without
    assert many - without == pytest.approx(10 * (few - without))
    assert few - without == pytest.approx(networks * 100 * (0.01 / 16 + 0.01 / 256))


def test_ten_times_the_images_take_ten_times_the_disk_beyond_what_is_fixed():
    few, many = estimate_of("synthesis.shards=8"), estimate_of("synthesis.shards=80")
    per_image = 10 * 10 + 2 * 4 * 10 + 8
    assert many.disk - few.disk == 72 * 2 * 8 * per_image


class Clock:
    """Every look at it takes a hundredth of a second."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        self.now += 0.01
        return self.now


@pytest.mark.parametrize(
    ("stage", "setting"),
    [
        ("synthesis", "synthesis.engine={name: pixels, stages: [{iterations: STEPS}], warmup: 2}"),
        ("search", "search.strategy={name: darts, epochs: STEPS}"),
        ("retraining", "retrain={epochs: STEPS, warmup_epochs: 0, batch_size: 8}"),
    ],
)
def test_hundred_times_the_steps_take_hundred_times_as_long(stage: str, setting: str, monkeypatch: pytest.MonkeyPatch):
    def seconds(steps: int) -> float:
        monkeypatch.setattr(estimation, "time", Clock())
        others = ("search.strategy={name: darts, epochs: 1}", "synthesis.labels.windows=1")
        return estimate_of(*others, setting.replace("STEPS", str(steps))).seconds[stage]

    assert seconds(300) == pytest.approx(100 * seconds(3), rel=0.05)


def test_every_batch_that_a_rating_takes_its_statistics_from_counts(monkeypatch: pytest.MonkeyPatch):
    """An epoch has ten; as many as are asked for are taken."""

    def seconds(batches: int) -> float:
        monkeypatch.setattr(estimation, "time", Clock())
        return estimate_of(f"search.strategy.recalibration_batches={batches}").seconds["search"]

    few, more, most = map(seconds, (20, 40, 60))
    assert most - more == pytest.approx(more - few)
    assert more > few
