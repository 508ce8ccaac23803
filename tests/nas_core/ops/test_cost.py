"""Multiply-accumulates and parameters against pencil and paper."""

import pytest
import torch
from torch import nn

from nas_core.ops.cost import count_macs, count_parameters


@pytest.mark.parametrize(
    ("module", "macs"),
    [
        (nn.Conv2d(3, 8, 3, padding=1), 8 * 3 * 9 * 6 * 4),
        (nn.Conv2d(3, 8, 3, stride=2, padding=1), 8 * 3 * 9 * 3 * 2),
        (nn.Conv2d(3, 3, 5, padding=2, groups=3), 3 * 25 * 6 * 4),
        (nn.Sequential(nn.Flatten(), nn.Linear(72, 10)), 72 * 10),
        (nn.Sequential(nn.Flatten(), nn.Linear(72, 10, bias=False)), 72 * 10),
        (nn.Sequential(nn.BatchNorm2d(3), nn.ReLU(), nn.AvgPool2d(2)), 0),
    ],
)
def test_macs_match_the_formula(module, macs):
    assert count_macs(module, (3, 6, 4)) == macs


def test_counting_changes_nothing():
    module = nn.BatchNorm2d(3)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    count_macs(module, (3, 4, 4))
    assert module.training
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())


def test_parameters_leave_buffers_out():
    assert count_parameters(nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3))) == 2 * 3 * 9 + 3 + 6
