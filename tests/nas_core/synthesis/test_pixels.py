"""The pixel engine makes images that the teacher recognises, from a seed alone."""

import dataclasses

import pytest
import torch
from torch import Tensor, nn

from nas_core.errors import InputError
from nas_core.schedule import warmup_cosine
from nas_core.seeding import generator
from nas_core.synthesis.checks import check_synthesis
from nas_core.synthesis.config import LossWeights, PixelEngine, SynthesisConfig
from nas_core.synthesis.labels import one_hot
from nas_core.synthesis.pixels import PixelSynthesis
from nas_core.teachers.teacher import Teacher


class Halves(nn.Module):
    """Tells images that are brighter above from images that are brighter below."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(1)
        self.scale = nn.Parameter(torch.tensor(4.0))

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(x)
        above, below = x[:, 0, :3].mean((1, 2)), x[:, 0, 3:].mean((1, 2))
        return self.scale * torch.stack([above - below, below - above], dim=1)


def halves(flip_invariant: bool = True) -> Teacher:
    return Teacher(Halves(), (1, 6, 6), (0.5,), (0.25,), ("above", "below"), flip_invariant)


def engine(**changes) -> PixelSynthesis:
    settings = {"iterations": 60, "warmup": 5, "learning_rate": 0.1, "betas": (0.5, 0.9), "losses": LossWeights()}
    return PixelSynthesis(halves(), canvas_size=(6, 8), label_temperature=1.0, **(settings | changes))


TARGETS = one_hot(torch.tensor([0, 1, 0, 1]), 2)


def test_images_are_of_their_class():
    images = engine().make(TARGETS, generator(0, "test"))
    assert torch.equal(images.soft_labels.argmax(1), TARGETS.argmax(1))
    brightness = images.canvases.float()
    assert (brightness[0, 0, :3].mean() > brightness[0, 0, 3:].mean()) == bool(TARGETS[0, 0])
    assert images.history[-1]["classification"] < images.history[0]["classification"]


def test_batch_norm_matching_moves_the_batch_towards_the_stored_statistics():
    """The layer stored mean 0 and variance 1 in normalised units; only that loss is on."""
    only_statistics = LossWeights(classification=0, total_variation=0, l2=0, batch_norm=1)
    images = engine(losses=only_statistics, iterations=150).make(TARGETS, generator(0, "test"))
    pixels = (images.canvases.float() / 255 - 0.5) / 0.25
    assert abs(pixels.mean()) < 0.1
    assert abs(pixels.var() - 1) < 0.15


def test_soft_targets_are_reached_as_distributions():
    target = torch.tensor([[0.7, 0.3]] * 4)
    images = engine(iterations=200).make(target, generator(0, "test"))
    torch.testing.assert_close(images.soft_labels, target, atol=0.05, rtol=0)


def test_the_same_seed_gives_the_same_bytes_and_another_does_not():
    one, two, other = (engine().make(TARGETS, generator(seed, "test")) for seed in (0, 0, 1))
    assert torch.equal(one.canvases, two.canvases)
    assert torch.equal(one.soft_labels, two.soft_labels)
    assert not torch.equal(one.canvases, other.canvases)


def test_global_random_state_has_no_influence():
    torch.manual_seed(1)
    one = engine().make(TARGETS, generator(0, "test"))
    torch.manual_seed(2)
    assert torch.equal(one.canvases, engine().make(TARGETS, generator(0, "test")).canvases)


def test_progress_counts_every_step():
    seen: list[tuple[int, int]] = []
    engine(iterations=7).make(TARGETS, generator(0, "test"), lambda done, total, _: seen.append((done, total)))
    assert seen == [(step, 7) for step in range(1, 8)]


def test_learning_rate_warms_up_then_falls_along_a_cosine():
    assert [warmup_cosine(step, 8, 4) for step in range(4)] == [0.25, 0.5, 0.75, 1.0]
    assert warmup_cosine(4, 8, 4) == 1.0
    assert warmup_cosine(6, 8, 4) == pytest.approx(0.5)
    assert 0 < warmup_cosine(7, 8, 4) < 0.2


def test_a_canvas_smaller_than_the_input_is_refused():
    with pytest.raises(InputError, match=r"synthesis\.canvas is 5x6, smaller than the teacher's input 6x6"):
        check_synthesis(halves(), SynthesisConfig(canvas=(5, 6)))


def test_a_gigantic_canvas_is_refused():
    with pytest.raises(InputError, match="are refused"):
        check_synthesis(halves(), SynthesisConfig(canvas=(100_000, 100_000)))


def test_a_teacher_without_statistics_is_refused_unless_matching_is_off():
    bare = dataclasses.replace(halves(), module=nn.Sequential(nn.Flatten(), nn.Linear(36, 2)))
    with pytest.raises(InputError, match="no BatchNorm layer with running statistics"):
        check_synthesis(bare, SynthesisConfig())
    prior_only = PixelEngine(losses=LossWeights(batch_norm=0))
    check_synthesis(bare, SynthesisConfig(pixels=prior_only))


def test_the_default_canvas_is_the_papers_share_of_the_input():
    assert SynthesisConfig().canvas_size((3, 224, 224)) == (256, 256)
    assert SynthesisConfig().canvas_size((1, 8, 8)) == (10, 10)
