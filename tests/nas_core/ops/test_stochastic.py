"""Random layers: their statistics, and streams that are theirs alone."""

import copy

import pytest
import torch
from torch import nn

from nas_core.ops.stochastic import Dropout, DropPath, Noise, SeededForward, reseed, set_drop_path
from nas_core.seeding import generator


def test_drop_path_drops_whole_images_and_keeps_the_mean():
    layer = DropPath()
    set_drop_path(layer, 0.25)
    out = layer(torch.ones(4000, 2, 3, 3))
    per_image = out.flatten(1)
    assert (per_image == per_image[:, :1]).all()
    assert sorted(set(per_image[:, 0].tolist())) == [0.0, pytest.approx(4 / 3)]
    assert out.mean().item() == pytest.approx(1, abs=0.05)


def test_dropout_keeps_the_mean():
    out = Dropout(0.1)(torch.ones(100, 100))
    assert (out == 0).float().mean().item() == pytest.approx(0.1, abs=0.015)
    assert out.mean().item() == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("layer", [DropPath(), Dropout(0.5)])
def test_evaluation_drops_nothing(layer):
    set_drop_path(layer, 0.5)
    x = torch.rand(4, 1, 2, 2)
    assert torch.equal(layer.eval()(x), x)


def test_noise_ignores_its_input_and_shrinks_by_its_stride():
    layer = Noise(2)
    out = layer(torch.full((50, 4, 9, 10), 7.0))
    assert out.shape == (50, 4, 5, 5)
    assert out.mean().item() == pytest.approx(0, abs=0.05)
    assert out.std().item() == pytest.approx(1, abs=0.05)


def test_a_stream_decides_everything_and_evaluation_leaves_that_of_training_alone():
    network = nn.Sequential(Noise(), Dropout(0.5))
    x = torch.zeros(1, 1, 4, 4)
    reseed(network, generator(1, "toy"))
    first, second = network(x), network(x)
    assert not torch.equal(first, second)
    reseed(network, generator(1, "toy"))
    assert torch.equal(network(x), first)
    network.eval()
    reseed(network, generator(2, "toy"))
    network(x)
    network.train()
    assert torch.equal(network(x), second)


class Row(SeededForward):
    """Layers in a row."""

    def __init__(self, *layers):
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x):
        return self.layers(x)


def test_an_evaluation_that_draws_nothing_seeds_nothing(monkeypatch):
    network = Row(nn.ReLU(), Dropout(0.5), DropPath()).eval()
    monkeypatch.setattr("nas_core.ops.stochastic.generator", lambda *_: pytest.fail("a generator was made"))
    x = torch.rand(2, 1, 3, 3)
    assert torch.equal(network(x), x)


def test_an_evaluation_with_noise_repeats_itself_in_copies_too():
    """Two layers of one stream differ; a copy that is made between two passes has layers of its own."""
    network = Row(Noise(), Noise()).eval()
    x = torch.zeros(1, 1, 4, 4)
    first = network(x)
    twin = copy.deepcopy(network)
    assert torch.equal(network(x), first)
    for layer in network.layers:
        layer.draw_from(generator(3, "toy"))
    assert torch.equal(twin(x), first)
    assert torch.equal(network(x), first)
    draws = generator(0, "evaluation")
    torch.randn(1, 1, 4, 4, generator=draws)
    assert torch.equal(first, torch.randn(1, 1, 4, 4, generator=draws))


def test_a_copy_draws_the_same():
    layer = Noise()
    x = torch.zeros(1, 1, 2, 2)
    twin = copy.deepcopy(layer)
    assert torch.equal(layer(x), twin(x))
