"""Random losses in the supernet and in images."""

import pytest
import torch
from torch import nn

from nas_core.ops.mixed import MixedOperation
from nas_core.settings.differentiable import Regularisation
from nas_core.strategies.regularisation import Drops


def draws(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_chances_rise_linearly_to_the_last_epoch():
    assert [Regularisation.ramp(0.6, epoch, 4) for epoch in range(4)] == pytest.approx([0, 0.2, 0.4, 0.6])
    assert Regularisation.ramp(0.6, 0, 1) == 0


def test_an_image_loses_a_whole_edge_or_is_scaled():
    mixed = MixedOperation([nn.Identity(), nn.Identity()])
    drops = Drops(mixed)
    drops.on(draws(), path=0.25, skip=0.0)
    out = mixed(torch.ones(4000, 2, 1, 1), torch.tensor([0.5, 0.5])).flatten(1)
    assert bool((out[:, 0] == out[:, 1]).all())
    torch.testing.assert_close(out[:, 0].unique(), torch.tensor([0, 1 / 0.75]))
    # Four standard errors of a share of 4,000.
    assert float((out[:, 0] == 0).float().mean()) == pytest.approx(0.25, abs=4 * (0.25 * 0.75 / 4000) ** 0.5)


def test_values_of_identity_skips_are_lost_and_no_other_operations():
    mixed = MixedOperation([nn.Identity(), nn.ReLU()])
    Drops(mixed).on(draws(), path=0.0, skip=0.5)
    x = torch.ones(1, 1, 50, 50)
    torch.testing.assert_close(mixed(x, 0).unique(), torch.tensor([0.0, 2.0]))
    assert torch.equal(mixed(x, 1), x)


def test_nothing_is_lost_in_eval_mode_or_when_off():
    mixed = MixedOperation([nn.Identity()])
    drops = Drops(mixed)
    x = torch.ones(8, 1, 2, 2)
    drops.on(draws(), path=0.5, skip=0.5)
    assert torch.equal(mixed.eval()(x, 0), x)
    drops.off()
    assert torch.equal(mixed.train()(x, 0), x)
