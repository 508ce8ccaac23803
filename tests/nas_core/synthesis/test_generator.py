"""The generator engine learns once, draws shards that need nothing of each other, and resumes to the same bytes."""

import copy
import dataclasses
import math
from pathlib import Path

import pytest
import torch
from doubles import Interruption, halves
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor, nn

from nas_core.checkpoint import Checkpoint
from nas_core.errors import InputError
from nas_core.seeding import generator
from nas_core.settings.synthesis import (
    GeneratorSpec,
    ImportedSpec,
    LabelCalibration,
    LossWeights,
    PixelSpec,
    PixelStage,
)
from nas_core.synthesis.build import build_engine
from nas_core.synthesis.config import SynthesisConfig
from nas_core.synthesis.generator import GeneratorSynthesis
from nas_core.synthesis.generator_network import ImageGenerator
from nas_core.synthesis.labels import one_hot, shard_classes
from nas_core.synthesis.losses import mode_seeking
from nas_core.synthesis.objective import StatisticsMemory
from nas_core.synthesis.statistics import LayerStatistics
from nas_core.teachers.networks import resnet20
from nas_core.teachers.teacher import Teacher

TARGETS = one_hot(torch.tensor([0, 1, 0, 1, 1, 0, 0, 1]), 2)
BOTH = torch.arange(2)
# For two classes of one feature; the defaults are for teachers with many layers.
LOSSES = {"losses": LossWeights(classification=2, batch_norm=0.1, total_variation=0), "diversity": 0.05}


def engine(**changes) -> GeneratorSynthesis:
    spec = GeneratorSpec(
        **(
            {"steps": 40, "snapshots": 2, "warmup": 2, "latent": 8, "width": 4, "learning_rate": 0.02}
            | LOSSES
            | changes
        )
    )
    config = SynthesisConfig(
        canvas=(8, 10), batch_size=8, engine=spec, labels=LabelCalibration(temperature=2, windows=1)
    )
    built = build_engine(halves(8), config)
    assert isinstance(built, GeneratorSynthesis)
    return built


def learned_engine(**changes) -> GeneratorSynthesis:
    made = engine(**changes)
    made.load(made.learn(BOTH, 16, 0, Checkpoint())[0])
    return made


def test_images_are_of_their_class_and_differ_within_it():
    images = learned_engine(steps=150, warmup=5).make(TARGETS, generator(0, "test"))
    brightness = images.canvases.float()
    above, below = brightness[:, 0, :4].mean((1, 2)), brightness[:, 0, 4:].mean((1, 2))
    assert torch.equal(above > below, TARGETS[:, 0] > 0)
    assert torch.equal(images.soft_labels.argmax(1), TARGETS.argmax(1))
    same_class = images.canvases[TARGETS[:, 0] > 0].flatten(1)
    assert len(same_class.unique(dim=0)) == len(same_class)


def test_learning_goes_down_the_loss():
    _, records = engine().learn(BOTH, 16, 0, Checkpoint())
    assert records[0]["step"] == 0
    assert records[-1]["step"] == 39
    assert records[-1]["classification"] < 0.5 * records[0]["classification"]
    assert {"total", "classification", "batch_norm", "diversity"} <= records[0].keys()


def test_a_shard_needs_no_other_shard_and_leaves_nothing_behind():
    """Shard 1 after shard 0 has the bytes of shard 1 alone, although each adapts the generator."""
    one = learned_engine(adaptation=3)
    one.make(TARGETS, generator(0, "shard", 0))
    after = one.make(TARGETS, generator(0, "shard", 1))
    alone = learned_engine(adaptation=3).make(TARGETS, generator(0, "shard", 1))
    assert torch.equal(after.canvases, alone.canvases)
    assert torch.equal(after.soft_labels, alone.soft_labels)
    other = one.make(TARGETS, generator(1, "shard", 1))
    assert not torch.equal(after.canvases, other.canvases)


def test_adaptation_makes_a_fresh_first_layer_draw_the_classes():
    short = learned_engine(adaptation=1).make(TARGETS, generator(0, "test"))
    long = learned_engine(adaptation=60).make(TARGETS, generator(0, "test"))
    assert long.losses.mean() < 0.5 * short.losses.mean()
    assert [record["step"] for record in short.history] == [0, 1]


def test_adapted_shards_of_one_copy_compose_differently():
    """A fresh first layer lays images out anew: the shards' mean images are alike only where nothing is adapted."""

    def alike(adaptation: int) -> float:
        made = learned_engine(steps=150, warmup=5, snapshots=1, adaptation=adaptation)
        first, second = (
            made.make(TARGETS.repeat(16, 1), generator(0, "shard", shard)).canvases.float() for shard in (0, 1)
        )
        means = torch.stack([first.mean(0).flatten(), second.mean(0).flatten()])
        return float(torch.corrcoef(means)[0, 1])

    assert alike(adaptation=0) > 0.9
    assert alike(adaptation=1) < 0.5


def test_refinement_goes_on_from_the_drawn_canvases():
    """Pixel steps of almost no length leave the drawing as it is."""
    drawn = learned_engine().make(TARGETS, generator(0, "test"))
    still = PixelSpec(stages=(PixelStage(iterations=3),), warmup=0, learning_rate=1e-9)
    refined = learned_engine(refinement=still).make(TARGETS, generator(0, "test"))
    assert torch.equal(refined.canvases, drawn.canvases)


def test_refinement_goes_down_its_loss():
    moving = PixelSpec(stages=(PixelStage(iterations=30),), warmup=0, learning_rate=0.05)
    refined = learned_engine(refinement=moving).make(TARGETS, generator(0, "test"))
    assert refined.history[-1]["total"] < refined.history[0]["total"]


def test_an_interrupted_refinement_ends_with_the_same_bytes():
    moving = PixelSpec(stages=(PixelStage(iterations=4),), warmup=0, learning_rate=0.1)
    made, saved, refined = learned_engine(refinement=moving, adaptation=3), [], []

    def save(state: dict) -> None:
        saved.append(copy.deepcopy(state))
        if len(saved) == 3 + 2:
            raise Interruption

    with pytest.raises(Interruption):
        made.make(TARGETS, generator(0, "test"), checkpoint=Checkpoint(save=save, seconds=0.0))
    straight = made.make(TARGETS, generator(0, "test"))
    resumed = made.make(
        TARGETS,
        generator(0, "test"),
        checkpoint=Checkpoint(state=saved[-1]),
        progress=lambda *step: refined.append(step),
    )
    assert saved[-1]["step"] == 2
    assert torch.equal(resumed.canvases, straight.canvases)
    assert torch.equal(resumed.soft_labels, straight.soft_labels)
    assert len(refined) == 2, "the adaptation, which was over, is not done again"


@pytest.mark.parametrize("stop_at", [1, 3])
def test_an_interrupted_adaptation_ends_with_the_same_bytes(stop_at):
    made, saved, steps = learned_engine(adaptation=4), [], []

    def stop(done, *_):
        if done == stop_at:
            raise Interruption

    checkpoint = Checkpoint(save=lambda state: saved.append(copy.deepcopy(state)), seconds=0.0)
    with pytest.raises(Interruption):
        made.make(TARGETS, generator(0, "test"), checkpoint=checkpoint, progress=stop)
    resumed = made.make(
        TARGETS,
        generator(0, "test"),
        checkpoint=Checkpoint(state=saved[-1]),
        progress=lambda done, *_: steps.append(done),
    )
    straight = made.make(TARGETS, generator(0, "test"))
    assert steps == list(range(stop_at + 1, 6)), "the steps that are left, and the drawing"
    assert torch.equal(resumed.canvases, straight.canvases)
    assert resumed.history == straight.history


@pytest.mark.parametrize("stop_at", [1, 25, 39])
def test_interrupted_learning_ends_with_the_same_bytes(stop_at):
    """The snapshots are of steps 22 and 40, the interruption is before, between and after others."""
    saved, steps = [], []

    def stop(done, *_):
        if done == stop_at:
            raise Interruption

    with pytest.raises(Interruption):
        engine().learn(
            BOTH, 16, 0, Checkpoint(save=lambda state: saved.append(copy.deepcopy(state)), seconds=0.0), stop
        )
    resumed, records = engine().learn(BOTH, 16, 0, Checkpoint(state=saved[-1]), lambda done, *_: steps.append(done))
    straight, expected = engine().learn(BOTH, 16, 0, Checkpoint())
    assert steps == list(range(stop_at + 1, 41)), "no step that was saved is taken again"
    assert resumed.keys() == straight.keys()
    assert all(torch.equal(resumed[name], straight[name]) for name in straight)
    assert records == expected


@pytest.mark.parametrize(
    "changes",
    [
        {"diversity": 0.0}, {"memory": 0.0}, {"warmup": 0}, {"betas": (0.9, 0.999)}, {"learning_rate": 0.01},
        {"precision": "bfloat16"}, {"losses": LossWeights(classification=2, batch_norm=0.2, total_variation=0)},
    ],
)  # fmt: skip
def test_every_setting_of_learning_has_a_part_in_what_is_learned(changes):
    usual, other = (
        engine(**({"steps": 6, "precision": "float32"} | given)).learn(BOTH, 16, 0, Checkpoint())[0]
        for given in ({}, changes)
    )
    assert not torch.equal(usual["generator.1.paint.weight"], other["generator.1.paint.weight"])


@pytest.mark.parametrize("changes", [{"latent_learning_rate": 1e-9}, {"memory": 0.0}])
def test_every_setting_of_adaptation_has_a_part_in_the_images(changes):
    usual, other = learned_engine(steps=6, adaptation=4), engine(steps=6, adaptation=4, **changes)
    other.load(usual._learned)
    made = [one.make(TARGETS, generator(0, "test")).history[-1] for one in (usual, other)]
    assert made[0] != made[1]


def test_snapshots_are_of_different_steps_and_without_a_layer_that_shards_draw_anew():
    """Two of 40 steps: after the first tenth, at equal distances, the last one included."""
    assert engine()._snapshot_steps() == {22, 40}
    adapting, _ = engine().learn(BOTH, 16, 0, Checkpoint())
    drawing, _ = engine(adaptation=0).learn(BOTH, 16, 0, Checkpoint())
    assert not torch.equal(adapting["generator.0.paint.weight"], adapting["generator.1.paint.weight"])
    assert {name.split(".")[2] for name in drawing.keys() - adapting.keys()} == {"project"}


def test_learning_that_diverges_is_refused_at_once():
    made, steps = engine(), []
    made.teacher.module.scale.data.fill_(torch.nan)
    with pytest.raises(InputError, match="synthesis diverged"):
        made.learn(BOTH, 16, 0, Checkpoint(), lambda *step: steps.append(step))
    assert not steps


def test_a_class_is_as_visible_among_a_thousand_as_among_ten():
    spread = []
    for classes in (10, 1000):
        network, seen = ImageGenerator((1, 8, 8), classes, latent=256, width=2), []
        network.initialise(generator(0, "test"))
        network.project.register_forward_pre_hook(lambda _, inputs, seen=seen: seen.append(inputs[0]))
        network(torch.zeros(10, 256), one_hot(torch.arange(10), classes))
        spread.append(float(seen[0].detach().std()))
    assert spread[0] == pytest.approx(1 / math.sqrt(3 * 10), rel=0.05)
    assert spread[1] == pytest.approx(spread[0], rel=0.05)


@pytest.mark.parametrize(("shape", "classes"), [((1, 8, 8), 2), ((3, 16, 24), 7), ((3, 8, 8), 1000)])
def test_any_shape_and_number_of_classes(shape: tuple[int, int, int], classes: int):
    channels = shape[0]
    module = resnet20(in_channels=channels, num_classes=classes)
    teacher = Teacher(module, shape, (0.5,) * channels, (0.25,) * channels, tuple(map(str, range(classes))))
    spec = GeneratorSpec(steps=2, snapshots=1, warmup=0, adaptation=1, latent=4, width=2)
    made = build_engine(teacher, SynthesisConfig(engine=spec))
    made.load(made.learn(torch.arange(classes), 5, 0, Checkpoint())[0])
    images = made.make(one_hot(shard_classes(0, 0, 5, classes), classes), generator(0, "test"))
    assert images.canvases.shape == (5, channels, *SynthesisConfig().canvas_size(shape))
    assert images.soft_labels.shape == (5, classes)


def test_a_refinement_that_does_not_fit_is_named():
    refinement = PixelSpec(stages=(PixelStage(divisor=3, iterations=50), PixelStage()))
    with pytest.raises(InputError, match=r"synthesis\.engine\.refinement\.stages has divisor 3"):
        engine(refinement=refinement).check()


def classes_asked_for(classes: torch.Tensor, batch_size: int) -> torch.Tensor:
    """The class of each image (step, image) while a generator learns for four steps."""
    seen = []

    class Watching(GeneratorSynthesis):
        def _descend(self, network, optimiser, targets, draws, memory):
            seen.append(targets)
            return super()._descend(network, optimiser, targets, draws, memory)

    made = engine(steps=4, snapshots=1)
    made.__class__ = Watching
    made.learn(classes, batch_size, 0, Checkpoint())
    largest = torch.stack(seen).max(dim=2)
    assert (largest.values == 1).all()
    return largest.indices


def test_only_chosen_classes_are_learned():
    assert torch.equal(classes_asked_for(torch.tensor([1]), 6), torch.ones(4, 6, dtype=torch.long))


def test_both_halves_of_a_batch_ask_for_the_same_classes_in_balance():
    """Five images of two classes in a half: two of the one and three of the other, and in four steps ten of each."""
    first, second = classes_asked_for(BOTH, 10).split(5, dim=1)
    assert torch.equal(first, second)
    assert set(first.sum(dim=1).tolist()) <= {2, 3}
    assert int(first.sum()) == 10


def test_targets_are_met_at_their_temperature():
    """While a shard adapts, and in the loss of its images: any prediction is even at an endless temperature."""
    soft = torch.tensor([[0.7, 0.3]] * 8)
    adapting, drawing = learned_engine(), learned_engine(adaptation=0)
    cold, warm = (adapting.make(soft, generator(0, "test"), target_temperature=t) for t in (1.0, 4.0))
    assert not torch.equal(cold.canvases, warm.canvases)
    even = drawing.make(soft, generator(0, "test"), target_temperature=1e6)
    torch.testing.assert_close(even.losses, torch.full((8,), math.log(2)))


@pytest.mark.parametrize("refinement", [None, PixelSpec(stages=(PixelStage(iterations=2),), warmup=0)])
def test_labels_of_one_window_are_the_last_predictions(views: list[tuple[Tensor, Tensor]], refinement):
    """At the labels' temperature of 2, of the drawing or of its refinement, whatever the targets' temperature."""
    made = learned_engine(steps=6, adaptation=2, refinement=refinement)
    images = made.make(TARGETS, generator(0, "test"), target_temperature=3.0)
    torch.testing.assert_close(images.soft_labels, (views[-1][1] / 2).softmax(1))


@settings(max_examples=25, deadline=None)
@given(channels=st.integers(1, 3), height=st.integers(2, 80), width=st.integers(2, 80), classes=st.integers(1, 12))
def test_a_generator_draws_canvases_of_any_size_in_the_valid_range(channels, height, width, classes):
    network = ImageGenerator((channels, height, width), classes, latent=4, width=2)
    images = network(torch.randn(3, 4), torch.full((3, classes), 1 / classes))
    assert images.shape == (3, channels, height, width)
    assert 0 <= images.min() <= images.max() <= 1
    shorter = min(height, width)
    if shorter < 16:
        assert min(network.start[1:]) == math.ceil(shorter / 2)
    else:
        assert 8 <= min(network.start[1:]) <= 16


def test_the_memory_blends_the_past_with_the_batch():
    """0.9 x 1 + 0.1 x 2 = 1.1; the gradient to the batch is the batch's share."""
    past = [(torch.ones(1), torch.ones(1))]
    mean = torch.full((1,), 2.0, requires_grad=True)
    now = LayerStatistics(mean, torch.ones(1), torch.zeros(1), torch.ones(1), torch.ones(()))
    memory = StatisticsMemory(0.9, past)
    (blend,) = memory.blended([now])
    torch.testing.assert_close(blend.batch_mean, torch.tensor([1.1]))
    torch.testing.assert_close(torch.autograd.grad(blend.batch_mean.sum(), mean)[0], torch.tensor([0.1]))
    memory.offer([(blend.batch_mean.detach(), blend.batch_var.detach())])
    assert memory.past == past
    memory.remember()
    torch.testing.assert_close(memory.past[0][0], torch.tensor([1.1]))


def test_without_a_past_the_batch_stands_alone():
    now = LayerStatistics(torch.full((1,), 2.0), torch.ones(1), torch.zeros(1), torch.ones(1), torch.ones(()))
    assert StatisticsMemory(0.9).blended([now]) == [now]


def test_mode_seeking_is_the_ratio_of_differences():
    """Latents 2 apart, images 0.5 apart: 4. Images that are alike: far larger."""
    latents = torch.tensor([[0.0], [2.0]])
    images = torch.tensor([0.0, 0.5]).reshape(2, 1, 1, 1)
    torch.testing.assert_close(mode_seeking(images, latents), torch.tensor(4.0), rtol=1e-4, atol=0)
    assert mode_seeking(torch.zeros(2, 1, 1, 1), latents) > 1e4


def test_statistics_of_no_layer_are_no_obstacle():
    """Prior-only synthesis: a teacher without BatchNorm."""
    bare = dataclasses.replace(halves(8), module=nn.Sequential(nn.Flatten(), nn.Linear(64, 2)))
    spec = GeneratorSpec(steps=2, snapshots=1, warmup=0, latent=4, width=2, losses=LossWeights(batch_norm=0))
    made = build_engine(bare, SynthesisConfig(canvas=(8, 8), engine=spec))
    made.load(made.learn(BOTH, 4, 0, Checkpoint())[0])
    assert made.make(TARGETS, generator(0, "test")).history[0]["batch_norm"] == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"warmup": 40}, "warmup = 40 must be smaller than steps = 40"),
        ({"snapshots": 21}, "snapshots = 21 must be at most half of steps = 40"),
        ({"betas": (0.5, 1.0)}, "must each be at least 0 and below 1"),
    ],
)
def test_settings_that_do_not_fit_together_are_refused(changes, message):
    with pytest.raises(ValidationError, match=message):
        engine(**changes)


def test_a_warm_start_from_canvases_is_refused():
    with pytest.raises(ValidationError, match=r"labels\.start = canvas needs the engine 'pixels'"):
        SynthesisConfig(engine=GeneratorSpec(), labels=LabelCalibration(start="canvas"))
    with pytest.raises(ValidationError, match=r"labels\.start = canvas needs the engine 'pixels'"):
        SynthesisConfig(engine=ImportedSpec(path=Path("mine"), listing="0"), labels=LabelCalibration(start="canvas"))


def test_a_loss_alone_leaves_the_others_at_the_generators_defaults():
    given = GeneratorSpec.model_validate({"losses": {"classification": 2}}).losses
    assert given == GeneratorSpec().losses.model_copy(update={"classification": 2.0})


def test_a_refinement_is_short_gentle_and_by_the_generators_losses_unless_told_otherwise():
    gentle = GeneratorSpec.model_validate({"refinement": {}}).refinement
    assert gentle == PixelSpec(
        stages=(PixelStage(iterations=20),), warmup=2, learning_rate=0.02, losses=GeneratorSpec().losses
    )
    told = GeneratorSpec.model_validate({"refinement": {"warmup": 3, "losses": {"l2": 1}}}).refinement
    losses = GeneratorSpec().losses.model_copy(update={"l2": 1.0})
    assert told == gentle.model_copy(update={"warmup": 3, "losses": losses})


def test_an_engine_may_be_given_by_its_name_alone():
    assert SynthesisConfig.model_validate({"engine": "generator"}).engine == GeneratorSpec()
