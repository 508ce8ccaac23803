"""Seeded initial weights: reproducible, independent of global state, of the intended size."""

import pytest
import torch
from torch import nn

from nas_core.ops.initialisation import initialise
from nas_core.seeding import generator


def build() -> nn.Module:
    return nn.Sequential(nn.Conv2d(32, 64, 3), nn.BatchNorm2d(64), nn.Conv2d(64, 64, 3, groups=64), nn.Linear(400, 300))


def test_weights_depend_on_nothing_but_the_generator():
    with torch.random.fork_rng():
        torch.manual_seed(1)
        first = build()
        torch.manual_seed(2)
        second = build()
    for network in (first, second):
        initialise(network, generator(7, "weights"))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    initialise(second, generator(8, "weights"))
    assert not torch.equal(first[0].weight, second[0].weight)


def test_global_state_is_left_alone():
    before = torch.get_rng_state()
    initialise(nn.Linear(2, 2, device="meta"), generator(0, "weights"))
    assert torch.equal(before, torch.get_rng_state())


def test_spread_follows_the_fan_in():
    """fan_in is 32 * 9 for the full and 9 for the depthwise convolution; U(-b, b) has variance b² / 3."""
    network = build()
    initialise(network, generator(0, "weights"))
    full, norm, depthwise, linear = network
    torch.testing.assert_close(full.weight.var(), torch.tensor(2 / 288), rtol=0.05, atol=0)
    torch.testing.assert_close(depthwise.weight.var(), torch.tensor(2 / 9), rtol=0.2, atol=0)
    torch.testing.assert_close(linear.weight.var(), torch.tensor(1 / 400 / 3), rtol=0.05, atol=0)
    assert linear.weight.abs().max() <= 1 / 20
    assert linear.bias.abs().max() <= 1 / 20
    assert torch.equal(full.bias, torch.zeros(64))
    assert torch.equal(norm.weight, torch.ones(64))


def test_running_statistics_start_over():
    norm = nn.BatchNorm2d(2)
    norm(torch.rand(4, 2, 3, 3, generator=generator(0, "images")))
    initialise(norm, generator(0, "weights"))
    assert torch.equal(norm.running_mean, torch.zeros(2))
    assert int(norm.num_batches_tracked) == 0


def test_a_layer_without_a_rule_is_refused():
    with pytest.raises(TypeError, match="PReLU"):
        initialise(nn.PReLU(), generator(0, "weights"))
