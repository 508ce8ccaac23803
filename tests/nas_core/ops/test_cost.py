"""Multiply-accumulates and parameters against pencil and paper."""

import pytest
import torch
from torch import nn
from torchvision.models import VisionTransformer

from nas_core.ops.cost import count_macs, count_parameters, macs_of_call


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


def test_attention_counts_alike_wherever_it_runs():
    """5 tokens of 8: patches, q, k and v, two products of 2 heads, output, two layers of 16, and 3 classes."""
    sizes = {"image_size": 8, "patch_size": 4, "num_layers": 1, "num_heads": 2, "hidden_dim": 8, "mlp_dim": 16}
    network = VisionTransformer(**sizes, num_classes=3).eval()
    tokens = 5 * 8 * 24 + 2 * (2 * 5 * 5 * 4) + 5 * 8 * 8 + 2 * (5 * 8 * 16)
    expected = 4 * 3 * 4 * 4 * 8 + tokens + 8 * 3
    assert macs_of_call(network, torch.zeros(1, 3, 8, 8)) == expected
    assert count_macs(network, (3, 8, 8)) == expected
    assert torch.backends.mha.get_fastpath_enabled()


def test_a_call_is_counted_for_all_of_its_images():
    assert macs_of_call(nn.Conv2d(3, 8, 3), torch.zeros(5, 3, 6, 4)) == 5 * 8 * 3 * 9 * 4 * 2


def test_parameters_leave_buffers_out():
    assert count_parameters(nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3))) == 2 * 3 * 9 + 3 + 6
