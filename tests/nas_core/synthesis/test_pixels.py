"""The pixel engine makes images that the teacher recognises, from a seed alone."""

import copy
import dataclasses
import itertools

import pytest
import torch
from doubles import Interruption, coded_canvases, halves, place_of
from pydantic import ValidationError
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d

from nas_core.checkpoint import Checkpoint
from nas_core.errors import InputError
from nas_core.ops.initialisation import initialise
from nas_core.schedule import warmup_cosine
from nas_core.seeding import generator
from nas_core.settings.synthesis import GeneratorSpec, LabelCalibration, LossWeights, PixelSpec, PixelStage
from nas_core.synthesis import pixels
from nas_core.synthesis.build import check_synthesis
from nas_core.synthesis.config import SynthesisConfig
from nas_core.synthesis.labels import one_hot, shard_classes
from nas_core.synthesis.pixels import PixelSynthesis
from nas_core.teachers.networks import resnet20
from nas_core.teachers.teacher import Teacher


def engine(**changes) -> PixelSynthesis:
    settings = {
        "teacher": halves(6),
        "canvas_size": (6, 8),
        "labels": LabelCalibration(temperature=1, windows=1),
        "stages": (PixelStage(iterations=60),),
        "min_scale": 1.0,
        "learning_rate": 0.1,
        "warmup": 5,
        "betas": (0.5, 0.9),
        "losses": LossWeights(),
    }
    return PixelSynthesis(**(settings | changes))


TARGETS = one_hot(torch.tensor([0, 1, 0, 1]), 2)


def test_images_are_of_their_class():
    images = engine().make(TARGETS, generator(0, "test"))
    assert torch.equal(images.soft_labels.argmax(1), TARGETS.argmax(1))
    brightness = images.canvases.float()
    assert (brightness[0, 0, :3].mean() > brightness[0, 0, 3:].mean()) == bool(TARGETS[0, 0])
    assert images.history[-1]["classification"] < images.history[0]["classification"]


def test_batch_norm_matching_moves_the_batch_towards_the_stored_statistics():
    """The layer stored mean 0 and variance 1 in normalised units; only that loss is on, and canvases start bright.

    They have the window's size: of a larger one the edges, which few windows show, stay brighter.
    """
    only_statistics = LossWeights(classification=0, total_variation=0, l2=0, batch_norm=1)
    start = torch.randint(200, 256, (4, 1, 6, 6), generator=generator(0, "start"), dtype=torch.uint8)
    made = engine(losses=only_statistics, canvas_size=(6, 6), stages=(PixelStage(iterations=100),))
    images = made.make(TARGETS, generator(0, "test"), start=start)
    pixels = (images.canvases.float() / 255 - 0.5) / 0.25
    assert abs(pixels.mean()) < 0.1
    assert abs(pixels.var() - 1) < 0.15
    assert images.history[-1]["batch_norm"] < 0.1 * images.history[0]["batch_norm"]


def test_soft_targets_are_reached_as_distributions():
    target = torch.tensor([[0.7, 0.3]] * 4)
    images = engine(stages=(PixelStage(iterations=200),)).make(target, generator(0, "test"))
    torch.testing.assert_close(images.soft_labels, target, atol=0.05, rtol=0)


def test_the_same_seed_gives_the_same_bytes_and_another_does_not():
    one, two, other = (engine().make(TARGETS, generator(seed, "test")) for seed in (0, 0, 1))
    assert torch.equal(one.canvases, two.canvases)
    assert torch.equal(one.soft_labels, two.soft_labels)
    assert not torch.equal(one.canvases, other.canvases)


def test_global_random_state_has_no_influence():
    with torch.random.fork_rng():
        torch.manual_seed(1)
        one = engine().make(TARGETS, generator(0, "test"))
        torch.manual_seed(2)
        assert torch.equal(one.canvases, engine().make(TARGETS, generator(0, "test")).canvases)


def test_a_shard_that_diverges_is_refused_at_once():
    broken, steps = dataclasses.replace(halves(6)), []
    broken.module.scale.data.fill_(torch.nan)
    with pytest.raises(InputError, match="synthesis diverged"):
        engine(teacher=broken).make(TARGETS, generator(0, "test"), progress=lambda *step: steps.append(step))
    assert not steps


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("canvas", [(8, 8), (9, 10)])
def test_a_step_is_adams_however_colours_lie_in_memory(canvas: tuple[int, int], layout, monkeypatch):
    """The fused Adam takes pixel and gradient by their place in memory, the plain one by their index."""
    module = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2)
    )
    initialise(module, generator(0, "teacher"))
    made = engine(
        teacher=Teacher(module, (3, 8, 8), (0.5,) * 3, (0.25,) * 3, ("a", "b")),
        canvas_size=canvas,
        losses=LossWeights(total_variation=0, l2=0),
        stages=(PixelStage(iterations=5),),
        warmup=0,
        precision="float32",
    )
    start = torch.randint(256, (4, 3, *canvas), generator=generator(0, "start"), dtype=torch.uint8)
    start = start.contiguous(memory_format=layout)
    fused = made.make(TARGETS, generator(0, "test"), start=start)
    plain = torch.optim.Adam
    monkeypatch.setattr(torch.optim, "Adam", lambda pixels, **settings: plain(pixels, **settings | {"fused": False}))
    by_index = made.make(TARGETS, generator(0, "test"), start=start)
    assert (fused.canvases.int() - by_index.canvases.int()).abs().max() <= 1
    assert not torch.equal(fused.canvases, start)


@pytest.mark.parametrize("stop_at", [1, 4, 6])
def test_an_interrupted_shard_ends_with_the_same_bytes(stop_at: int):
    """Before, at and after the change of stages, which comes after four steps."""
    saved, steps = [], []

    def stop(done, *_):
        if done == stop_at:
            raise Interruption

    made = engine(stages=(PixelStage(iterations=4), PixelStage(iterations=3)), warmup=2)
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
    assert steps == list(range(stop_at + 1, 8)), "no step that was saved is taken again"
    assert torch.equal(resumed.canvases, straight.canvases)
    assert torch.equal(resumed.soft_labels, straight.soft_labels)
    assert resumed.history == straight.history


def test_a_checkpoint_is_saved_no_more_often_than_asked():
    saved = []
    engine().make(TARGETS, generator(0, "test"), checkpoint=Checkpoint(save=saved.append, seconds=3600.0))
    assert saved == []


def test_progress_counts_every_step():
    seen: list[tuple[int, int]] = []
    engine(stages=(PixelStage(iterations=7),)).make(
        TARGETS, generator(0, "test"), progress=lambda done, total, _: seen.append((done, total))
    )
    assert seen == [(step, 7) for step in range(1, 8)]


def test_learning_rate_warms_up_then_falls_along_a_cosine():
    assert [warmup_cosine(step, 8, 4) for step in range(4)] == [0.25, 0.5, 0.75, 1.0]
    assert warmup_cosine(4, 8, 4) == 1.0
    assert warmup_cosine(6, 8, 4) == pytest.approx(0.5)
    assert 0 < warmup_cosine(7, 8, 4) < 0.2


def test_a_canvas_smaller_than_the_input_is_refused():
    with pytest.raises(InputError, match=r"synthesis\.canvas is 5x6, smaller than the teacher's input 6x6"):
        check_synthesis(halves(6), SynthesisConfig(canvas=(5, 6)))


def test_a_gigantic_canvas_is_refused():
    with pytest.raises(InputError, match="are refused"):
        check_synthesis(halves(6), SynthesisConfig(canvas=(100_000, 100_000)))


def head() -> list[nn.Module]:
    return [nn.Flatten(), nn.Linear(36, 2)]


@pytest.mark.parametrize(
    ("layers", "found"),
    [
        ([], "none, or folded into the convolutions"),
        ([nn.GroupNorm(1, 1), nn.LayerNorm(6), nn.LayerNorm(6)], "1 GroupNorm, 2 LayerNorm"),
        ([nn.BatchNorm2d(1, track_running_stats=False)], "1 BatchNorm2d without running statistics"),
        ([FrozenBatchNorm2d(1)], "1 FrozenBatchNorm2d"),
    ],
)
def test_a_teacher_without_statistics_is_refused_unless_matching_is_off(layers: list[nn.Module], found: str):
    bare = dataclasses.replace(halves(6), module=nn.Sequential(*layers, *head()))
    with pytest.raises(
        InputError, match=rf"its norm layers: {found}\).*set synthesis\.engine\.losses\.batch_norm to 0"
    ):
        check_synthesis(bare, SynthesisConfig())
    with pytest.raises(InputError, match=r"set synthesis\.engine\.losses\.relative_batch_norm to 0"):
        check_synthesis(bare, SynthesisConfig(engine=GeneratorSpec()))
    refined = GeneratorSpec(losses=LossWeights(batch_norm=0), refinement=PixelSpec())
    with pytest.raises(InputError, match=r"set synthesis\.engine\.refinement\.losses\.batch_norm to 0"):
        check_synthesis(bare, SynthesisConfig(engine=refined))
    prior_only = LossWeights(batch_norm=0)
    check_synthesis(bare, SynthesisConfig(engine=PixelSpec(losses=prior_only)))
    images = engine(teacher=bare, losses=prior_only, stages=(PixelStage(iterations=6),)).make(
        TARGETS, generator(0, "test")
    )
    assert images.history[0]["batch_norm"] == 0


def test_stages_count_their_steps_and_restart_the_schedule(monkeypatch):
    """The learning rate of each step, as Adam sees it: warm-up and cosine twice."""
    rates: list[float] = []

    def schedule(position: int, steps: int, warmup: int) -> float:
        rates.append(warmup_cosine(position, steps, warmup))
        return rates[-1]

    monkeypatch.setattr(pixels, "warmup_cosine", schedule)
    stages = (PixelStage(divisor=2, iterations=4), PixelStage(iterations=3))
    images = engine(stages=stages, warmup=2).make(TARGETS, generator(0, "test"))
    assert rates == [0.5, 1, 1, pytest.approx(0.5), 0.5, 1, 1]
    assert [record["step"] for record in images.history] == list(range(7))


def test_every_stage_has_an_optimiser_of_its_own():
    """Adam counts its steps, and starts again with the second stage."""
    counts: list[float] = []

    def save(state: dict) -> None:
        counts.append(float(state["optimiser"]["state"][0]["step"]))

    stages = (PixelStage(divisor=2, iterations=4), PixelStage(iterations=3))
    engine(stages=stages, warmup=2).make(TARGETS, generator(0, "test"), checkpoint=Checkpoint(save=save, seconds=0.0))
    assert counts == [1, 2, 3, 4, 1, 2]


def test_a_coarse_stage_shows_the_teacher_windows_of_the_averaged_canvas(views: list[tuple[Tensor, Tensor]]):
    """A canvas of 6x8 and an input of 6x6 are 3x4 and 3x3 at divisor 2; the last stage sees the input's size.

    Steps of almost no length leave the canvas as it was; a window may be mirrored.
    """
    stages = (PixelStage(divisor=2, iterations=8), PixelStage(iterations=1))
    made = engine(stages=stages, warmup=0, learning_rate=1e-9)
    start = torch.randint(256, (4, 1, 6, 8), generator=generator(0, "start"), dtype=torch.uint8)
    made.make(TARGETS, generator(0, "test"), start=start)
    averaged = made.teacher.normalise(start).reshape(4, 1, 3, 2, 4, 2).mean((3, 5))
    windows = [averaged[..., :3], averaged[..., 1:]]
    windows += [window.flip(3) for window in windows]
    coarse, (last, _) = views[:-1], views[-1]
    assert len(coarse) == 8
    assert all(any(torch.allclose(view, window, atol=1e-5) for window in windows) for view, _ in coarse)
    assert last.shape == (4, 1, 6, 6)


@pytest.mark.parametrize("may_flip", [False, True])
def test_every_step_shows_the_batch_one_window_at_any_offset(views: list[tuple[Tensor, Tensor]], may_flip: bool):
    """Steps of almost no length leave the canvases as they were, whose pixels say where they are."""
    teacher = dataclasses.replace(halves(8), flip_invariant=may_flip)
    made = engine(teacher=teacher, canvas_size=(10, 10), learning_rate=1e-9)
    made.make(TARGETS, generator(0, "test"), start=coded_canvases(4))
    shown = [{place_of(image) for image in teacher.to_bytes(view)} for view, _ in views]
    assert [len(places) for places in shown] == [1] * 60
    places = [place for (place,) in shown]
    assert {(top, left) for top, left, _ in places} == set(itertools.product(range(3), repeat=2))
    mirrored = sum(flipped for *_, flipped in places)
    # Of 60 fair coins the standard deviation is 3.9.
    assert abs(mirrored - 30) < 5 * 3.9 if may_flip else mirrored == 0


@pytest.mark.parametrize("seed", range(3))
def test_a_step_moves_the_pixels_of_its_window_and_no_others(seed: int):
    start = torch.randint(100, 156, (4, 1, 9, 8), generator=generator(0, "start"), dtype=torch.uint8)
    made = engine(canvas_size=(9, 8), stages=(PixelStage(iterations=1),), warmup=0, learning_rate=1.0)
    images = made.make(TARGETS, generator(seed, "test"), start=start)
    changed = (images.canvases != start).any(dim=0)[0]
    top, left = changed.nonzero()[0].tolist()
    window = torch.zeros(9, 8, dtype=torch.bool)
    window[top : top + 6, left : left + 6] = True
    assert torch.equal(changed, window)


def test_pixels_stay_in_the_range_of_images_after_every_step(views: list[tuple[Tensor, Tensor]]):
    """Black is -2 and white 2 in this teacher's units; a step of 5 would leave that range."""
    engine(learning_rate=5.0, warmup=0).make(TARGETS, generator(0, "test"))
    after_a_step = torch.cat([view for view, _ in views[1:]])
    assert (after_a_step.min(), after_a_step.max()) == (-2, 2)


@pytest.mark.parametrize(("canvas", "divisor"), [((6, 9), 2), ((8, 8), 4)])
def test_a_divisor_that_does_not_divide_is_refused(canvas: tuple[int, int], divisor: int):
    stages = (PixelStage(divisor=divisor), PixelStage())
    config = SynthesisConfig(canvas=canvas, engine=PixelSpec(stages=stages))
    with pytest.raises(InputError, match=f"has divisor {divisor}, which does not divide the canvas"):
        check_synthesis(halves(6), config)


def test_a_divisor_that_leaves_a_single_pixel_is_refused():
    config = SynthesisConfig(canvas=(6, 6), engine=PixelSpec(stages=(PixelStage(divisor=6), PixelStage())))
    with pytest.raises(InputError, match="leaves 1x1 pixels of the teacher's input"):
        check_synthesis(halves(6), config)


def test_a_resolution_that_the_teacher_cannot_take_is_refused():
    fixed = dataclasses.replace(halves(6), module=nn.Sequential(nn.BatchNorm2d(1), *head()))
    config = SynthesisConfig(canvas=(6, 6), engine=PixelSpec(stages=(PixelStage(divisor=2), PixelStage())))
    with pytest.raises(InputError, match="cannot take images of 3x3"):
        check_synthesis(fixed, config)


def test_the_last_stage_has_full_resolution():
    with pytest.raises(ValidationError, match="must have divisor 1"):
        PixelSpec(stages=(PixelStage(divisor=2),))


def test_warmup_must_end_within_every_stage():
    with pytest.raises(ValidationError, match=r"smaller than the iterations of every stage \(30\)"):
        PixelSpec(stages=(PixelStage(iterations=30), PixelStage(iterations=100)), warmup=40)


def test_scale_jitter_shows_windows_of_the_inputs_size(views: list[tuple[Tensor, Tensor]]):
    images = engine(min_scale=0.3).make(TARGETS, generator(0, "test"))
    assert torch.equal(images.soft_labels.argmax(1), TARGETS.argmax(1))
    assert {tuple(view.shape[2:]) for view, _ in views} == {(6, 6)}


def test_a_warm_start_begins_at_the_given_canvases():
    """With a vanishing learning rate the canvases stay what they were."""
    start = torch.randint(256, (4, 1, 6, 8), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    images = engine(learning_rate=1e-9).make(TARGETS, generator(0, "test"), start=start)
    assert torch.equal(images.canvases, start)


def test_labels_of_one_window_are_the_last_predictions(views: list[tuple[Tensor, Tensor]]):
    images = engine(labels=LabelCalibration(temperature=2, windows=1)).make(TARGETS, generator(0, "test"))
    torch.testing.assert_close(images.soft_labels, (views[-1][1] / 2).softmax(1))


def test_labels_of_several_windows_are_the_mean_over_new_ones(monkeypatch):
    """Seven windows of the finished canvas, which is two pixels wider than the input."""
    seen: list[tuple[Tensor, Tensor]] = []
    ask = Teacher.logits

    def watched(teacher: Teacher, images: Tensor) -> Tensor:
        seen.append((images, ask(teacher, images)))
        return seen[-1][1]

    monkeypatch.setattr(Teacher, "logits", watched)
    images = engine(labels=LabelCalibration(temperature=2, windows=7)).make(TARGETS, generator(0, "test"))
    expected = torch.stack([(logits / 2).softmax(1) for _, logits in seen]).mean(0)
    assert len(seen) == 7
    assert len({view.numpy().tobytes() for view, _ in seen}) > 1
    torch.testing.assert_close(images.soft_labels, expected)


def test_tempered_targets_are_met_at_their_temperature():
    """Odds of 7 to 3 at temperature 4 are odds of (7/3)^4, or 0.967 to 0.033, at temperature 1."""
    target = torch.tensor([[0.7, 0.3]] * 4)
    cold = engine(stages=(PixelStage(iterations=300),))
    images = cold.make(target, generator(0, "test"), target_temperature=4.0)
    torch.testing.assert_close(
        images.soft_labels[:, 0], torch.full((4,), (7 / 3) ** 4 / (1 + (7 / 3) ** 4)), atol=0.02, rtol=0
    )


@pytest.mark.parametrize(("shape", "classes"), [((1, 8, 8), 2), ((3, 16, 24), 7), ((3, 8, 8), 1000)])
def test_any_shape_and_number_of_classes(shape: tuple[int, int, int], classes: int):
    channels = shape[0]
    module = resnet20(in_channels=channels, num_classes=classes)
    teacher = Teacher(module, shape, (0.5,) * channels, (0.25,) * channels, tuple(map(str, range(classes))))
    config = SynthesisConfig()
    canvas = config.canvas_size(shape)
    stages = (PixelStage(divisor=1, iterations=2), PixelStage(iterations=2))
    targets = one_hot(shard_classes(0, 0, 5, classes), classes)
    images = engine(teacher=teacher, canvas_size=canvas, stages=stages, warmup=1).make(targets, generator(0, "test"))
    assert images.canvases.shape == (5, channels, *canvas)
    assert images.soft_labels.shape == (5, classes)


def test_the_default_canvas_is_the_papers_share_of_the_input():
    assert SynthesisConfig().canvas_size((3, 224, 224)) == (256, 256)
    assert SynthesisConfig().canvas_size((1, 8, 8)) == (10, 10)
