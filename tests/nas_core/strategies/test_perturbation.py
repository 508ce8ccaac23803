"""Perturbations of SDARTS: where they may go, and what they do to the loss."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nas_core.settings.differentiable import Perturbation
from nas_core.strategies.perturbation import adversarial_mixture, project, random_mixture, random_offset


def draws(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_epsilon_rises_from_003_towards_030():
    """The published schedule: .03 + .27 epoch / epochs."""
    values = [Perturbation().epsilon(epoch, 50) for epoch in (0, 25, 49)]
    assert values == pytest.approx([0.03, 0.165, 0.2946])


def test_projection_cuts_and_renormalises():
    """(-.1, .5, 1.5) is cut to (0, .5, 1), which sums to 1.5."""
    torch.testing.assert_close(project(torch.tensor([-0.1, 0.5, 1.5])), torch.tensor([0, 1 / 3, 2 / 3]))


def test_where_nothing_is_left_the_largest_takes_all():
    assert project(torch.tensor([-0.3, -0.1, -0.2])).tolist() == [0, 1, 0]


@given(st.lists(st.floats(-2, 2, width=32), min_size=1, max_size=8))
def test_projection_lands_on_the_simplex(values):
    projected = project(torch.tensor(values))
    assert bool((projected >= 0).all())
    assert float(projected.sum()) == pytest.approx(1, abs=1e-5)


def test_random_offset_has_the_mean_and_support_of_the_box():
    """U(-e, e) has mean 0 and standard deviation e / sqrt(3); the mean of n draws is within 4 standard errors."""
    offset = random_offset([torch.zeros(20_000)], 0.2, draws())[0]
    assert float(offset.abs().max()) <= 0.2
    assert float(offset.min()) < -0.199
    assert float(offset.max()) > 0.199
    error = 0.2 / 3**0.5 / 20_000**0.5
    assert abs(float(offset.mean())) < 4 * error
    assert float(offset.std()) == pytest.approx(0.2 / 3**0.5, rel=0.02)


def test_random_perturbation_is_that_offset_projected():
    mixture = [torch.tensor([0.25, 0.75]), torch.full((5,), 0.2)]
    offsets = random_offset(mixture, 0.1, draws(3))
    for moved, clean, offset in zip(random_mixture(mixture, 0.1, draws(3)), mixture, offsets, strict=True):
        torch.testing.assert_close(moved, project(clean + offset))


def bowl(centre: torch.Tensor):
    return lambda mixture: -(mixture[0] - centre).square().sum()


@pytest.mark.parametrize("seed", range(10))
def test_adversarial_stays_on_the_simplex_and_does_not_lower_the_loss(seed):
    generator = draws(seed)
    clean = [torch.randn(5, generator=generator).softmax(0)]
    loss = bowl(torch.rand(5, generator=generator))
    moved = adversarial_mixture(clean, 0.1, 7, loss, generator)
    assert float(moved[0].sum()) == pytest.approx(1, abs=1e-5)
    assert bool((moved[0] >= 0).all())
    assert float(loss(moved)) >= float(loss(clean))
    # The box holds up to the projection's scaling: some multiple of the result lies in it.
    lowest = ((clean[0] - 0.1) / moved[0]).nan_to_num(nan=-torch.inf)
    highest = ((clean[0] + 0.1) / moved[0]).nan_to_num(nan=torch.inf)
    assert float(lowest.max()) <= float(highest.min()) + 1e-5


def test_without_the_projections_scaling_the_offset_is_in_the_box():
    """Up for one operation and down for the other keep the sum: the corner of the box is reached, not passed."""
    clean = [torch.tensor([0.5, 0.5])]
    moved = adversarial_mixture(clean, 0.1, 7, lambda mixture: mixture[0][0] - mixture[0][1], draws())
    torch.testing.assert_close(moved[0], torch.tensor([0.6, 0.4]))


def test_a_lower_loss_is_reverted():
    """A peak at the clean mixture: whatever is tried is worse for the adversary."""
    clean = [torch.tensor([0.25, 0.75])]
    moved = adversarial_mixture(clean, 0.2, 7, lambda mixture: -(mixture[0] - clean[0]).abs().sum(), draws())
    assert torch.equal(moved[0], clean[0])


def test_the_adversary_asks_for_one_gradient_per_step_and_two_values():
    asked = []

    def loss(mixture):
        asked.append(mixture[0].requires_grad)
        return mixture[0].square().sum()

    adversarial_mixture([torch.full((3,), 1 / 3)], 0.05, 7, loss, draws())
    assert asked == [True] * 7 + [False] * 2
