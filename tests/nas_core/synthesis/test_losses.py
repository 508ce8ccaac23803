"""Losses against hand-computed values and limits."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from nas_core.settings.synthesis import LossWeights
from nas_core.synthesis.losses import (
    mean_image_norm,
    soft_cross_entropy,
    statistics_distance,
    statistics_size,
    total_variation_l1,
    total_variation_l2,
)
from nas_core.synthesis.objective import Objective
from nas_core.teachers.teacher import Teacher


def two_channel_teacher(mean: list[float], variance: list[float]) -> Teacher:
    """BatchNorm on the images, then a linear layer."""
    norm = nn.BatchNorm2d(2)
    norm.running_mean, norm.running_var = torch.tensor(mean), torch.tensor(variance)
    module = nn.Sequential(norm, nn.Flatten(), nn.Linear(2 * 4 * 4, 2))
    return Teacher(module, (2, 4, 4), (0.5, 0.5), (0.25, 0.25), ("a", "b"))


def test_statistics_distance_matches_hand_computed_value():
    """Means 1 and 4 are 3 apart, variances 1 and 5 are 4 apart."""
    one, four, five = torch.tensor([1.0]), torch.tensor([4.0]), torch.tensor([5.0])
    torch.testing.assert_close(statistics_distance(one, one, four, five), torch.tensor(7.0))


def test_the_size_of_statistics_matches_hand_computed_value():
    """Norms of (3, 4) and (6, 8)."""
    assert statistics_size(torch.tensor([3.0, 4.0]), torch.tensor([6.0, 8.0])) == 5 + 10


def test_without_batch_norm_there_is_no_distance():
    bare = Teacher(nn.Sequential(nn.Flatten(), nn.Linear(32, 2)), (2, 4, 4), (0.5,) * 2, (0.25,) * 2, ("a", "b"))
    terms, _ = Objective(bare, LossWeights())(torch.ones(3, 2, 4, 4), torch.full((3, 2), 0.5), 1.0)
    assert terms["batch_norm"] == terms["relative_batch_norm"] == 0


class TwiceAndNever(nn.Module):
    """Of its BatchNorm layers, one runs twice and one never."""

    def __init__(self) -> None:
        super().__init__()
        self.twice, self.never = (two_channel_teacher([3.0, 4.0], [6.0, 8.0]).module[0] for _ in range(2))
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(32, 2))

    def forward(self, x: Tensor) -> Tensor:
        self.twice(x)
        return self.head(self.twice(0 * x))


def test_the_relative_distance_counts_the_calls_that_ran():
    teacher = Teacher(TwiceAndNever(), (2, 4, 4), (0.5,) * 2, (0.25,) * 2, ("a", "b"))
    weights = LossWeights(relative_batch_norm=1, first_batch_norm=1)
    judge = Objective(teacher, weights, precision="float32")
    terms, _ = judge(torch.zeros(3, 2, 4, 4), torch.full((3, 2), 0.5), 1.0)
    assert terms["relative_batch_norm"].item() == pytest.approx(1)


@pytest.mark.parametrize("scale", [1.0, 10.0])
def test_the_relative_distance_of_empty_statistics_is_one_for_every_teacher(scale):
    """Black images have mean and variance zero, as far from the stored ones as those are large."""
    teacher = two_channel_teacher([3.0 * scale, 4.0 * scale], [6.0 * scale, 8.0 * scale])
    weights = LossWeights(
        classification=0, batch_norm=0, relative_batch_norm=2, first_batch_norm=1, total_variation=0, l2=0
    )
    terms, _ = Objective(teacher, weights, precision="float32")(torch.zeros(3, 2, 4, 4), torch.full((3, 2), 0.5), 1.0)
    assert terms["batch_norm"].item() == pytest.approx(15 * scale)
    assert terms["relative_batch_norm"].item() == pytest.approx(1)
    assert terms["total"].item() == pytest.approx(2)


def test_the_first_layers_distance_is_multiplied_and_no_others():
    """Black is 5 + 10 from the first, which makes (-3 / sqrt 6, -4 / sqrt 8) of it; the second remembers 0 and 1."""
    first, second = two_channel_teacher([3.0, 4.0], [6.0, 8.0]).module[0], nn.BatchNorm2d(2)
    module = nn.Sequential(first, second, nn.Flatten(), nn.Linear(2 * 4 * 4, 2))
    teacher = Teacher(module, (2, 4, 4), (0.5, 0.5), (0.25, 0.25), ("a", "b"))
    judge = Objective(teacher, LossWeights(first_batch_norm=3), precision="float32")
    terms, _ = judge(torch.zeros(3, 2, 4, 4), torch.full((3, 2), 0.5), 1.0)
    assert terms["batch_norm"].item() == pytest.approx(3 * 15 + math.sqrt(9 / 6 + 16 / 8) + math.sqrt(2), rel=1e-5)


def test_total_variation_of_a_flat_image_is_zero():
    assert total_variation_l2(torch.full((2, 3, 4, 5), 0.7)) == 0


def test_total_variation_matches_hand_computed_value():
    """Columns 0 and 1 differ by one: 2 horizontal pairs and one pair on each diagonal, none vertical."""
    image = torch.tensor([[0.0, 1.0], [0.0, 1.0]]).reshape(1, 1, 2, 2)
    torch.testing.assert_close(total_variation_l2(image), torch.tensor(math.sqrt(2) + 0 + 1 + 1))


def test_total_variation_l1_matches_hand_computed_value():
    """The same image: the means of |1|, |1| across, |0|, |0| down, and |1| on each diagonal."""
    image = torch.tensor([[0.0, 1.0], [0.0, 1.0]]).reshape(1, 1, 2, 2)
    torch.testing.assert_close(total_variation_l1(image), torch.tensor(1.0 + 0 + 1 + 1))


@given(copies=st.integers(1, 5), seed=st.integers(0, 1000))
def test_a_weight_means_the_same_at_every_batch_size(copies: int, seed: int):
    """Repeating the batch changes no image, so it must change no loss."""
    images = torch.randn(2, 1, 4, 4, generator=torch.Generator().manual_seed(seed))
    repeated = images.repeat(copies, 1, 1, 1)
    torch.testing.assert_close(total_variation_l2(repeated), total_variation_l2(images))
    torch.testing.assert_close(total_variation_l1(repeated), total_variation_l1(images))
    torch.testing.assert_close(mean_image_norm(repeated), mean_image_norm(images))


def test_mean_image_norm_matches_hand_computed_value():
    """Images of norm 5 and 0."""
    images = torch.tensor([[3.0, 4.0], [0.0, 0.0]]).reshape(2, 1, 1, 2)
    torch.testing.assert_close(mean_image_norm(images), torch.tensor(2.5))


def test_soft_cross_entropy_of_one_hot_targets_is_the_usual_one():
    logits = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    classes = torch.tensor([0, 3, 1, 1, 2])
    usual = torch.nn.functional.cross_entropy(logits, classes, reduction="none")
    torch.testing.assert_close(soft_cross_entropy(logits, torch.nn.functional.one_hot(classes).float()), usual)


def test_soft_cross_entropy_is_least_at_the_target_where_it_is_the_entropy():
    target = torch.tensor([[0.5, 0.25, 0.25]])
    at_target = soft_cross_entropy(target.log(), target)
    torch.testing.assert_close(at_target, torch.tensor([1.5 * math.log(2)]))
    assert soft_cross_entropy(torch.tensor([[3.0, 0.0, 0.0]]), target) > at_target


@pytest.mark.parametrize("loss", [total_variation_l1, total_variation_l2, mean_image_norm])
def test_losses_have_finite_gradients_at_a_black_batch(loss):
    """A norm has no slope at zero; the gradient must be zero there, not NaN."""
    images = torch.zeros(2, 1, 3, 3, requires_grad=True)
    loss(images).backward()
    assert images.grad is not None
    assert torch.isfinite(images.grad).all()


def test_the_papers_weight_of_total_variation_is_the_default_at_its_batch_size():
    """1e-4 times the unnormalised norm of a batch of 50 is the default weight times ours."""
    images = torch.randn(50, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    papers = 1e-4 * total_variation_l2(images) * math.sqrt(50)
    assert math.isclose(LossWeights().total_variation * total_variation_l2(images), papers, rel_tol=5e-3)
