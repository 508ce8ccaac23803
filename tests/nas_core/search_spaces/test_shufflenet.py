"""The ShuffleNetV2 space against the look-up table of Single Path One-Shot."""

import pytest
import torch

from nas_core.errors import InputError
from nas_core.ops.cost import count_parameters
from nas_core.search_spaces.shufflenet import OPERATIONS, Block, Place, ShuffleNet

PUBLISHED = "2,1,0,1,2,0,2,0,2,0,2,3,0,0,0,0,3,2,3,3"
# Millions of multiply-accumulates of each stage's first and other blocks, operation by operation.
TABLE = {
    0: (13.397, 15.805, 19.418, 13.146),
    1: (7.326, 8.931, 11.340, 12.343),
    4: (26.305, 28.111, 30.821, 20.296),
    5: (10.600, 11.603, 13.108, 16.746),
    8: (30.670, 31.674, 33.178, 21.199),
    15: (10.317, 10.819, 11.572, 15.900),
    16: (30.388, 30.890, 31.642, 20.635),
    19: (10.176, 10.427, 10.804, 15.476),
}


@pytest.fixture(scope="module")
def full() -> ShuffleNet:
    return ShuffleNet(input_shape=(3, 224, 224), num_classes=1000)


def test_look_up_table(full):
    costs = full.macs_table
    fixed, table = costs.fixed, costs.operations
    assert fixed == pytest.approx(5.419e6 + 33.137e6, abs=1e3)
    for block, costs in TABLE.items():
        assert [round(cost / 1e6, 3) for cost in table[block]] == pytest.approx(costs, abs=1.1e-3)


@pytest.mark.parametrize(("choice", "macs"), list(enumerate([295.84, 313.65, 340.37, 358.83])))
def test_uniform_networks(full, choice, macs):
    assert full.macs((choice,) * 20) / 1e6 == pytest.approx(macs, abs=0.006)


def test_published_architecture(full):
    """322.92M multiply-accumulates and 3.558M parameters."""
    architecture = full.parse(PUBLISHED)
    assert full.macs(full.choices(architecture)) / 1e6 == pytest.approx(322.92, abs=0.006)
    with torch.device("meta"):
        assert round(count_parameters(full.network(architecture)) / 1e6, 3) == 3.558
    assert str(architecture) == PUBLISHED
    assert full.parse(str([int(number) for number in PUBLISHED.split(",")])) == architecture


def test_number_of_architectures(full):
    assert full.size == 4**20


def test_a_cifar_sized_network_ends_at_four_pixels():
    space = ShuffleNet(strides=(1, 1, 2, 2, 2), input_shape=(3, 32, 32), num_classes=10)
    with torch.device("meta"):
        network = space.network(space.architecture((0,) * 20))
        x = network.stem(torch.empty(1, 3, 32, 32))
        for block in network.blocks:
            x = block(x)
    assert x.shape == (1, 640, 4, 4)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_even_channels_pass_by(operation):
    x = torch.rand(2, 8, 5, 5)
    out = Block(operation, Place(8, 8, 1, (8, 5, 5)), affine=True)(x)
    assert torch.equal(out[:, :4], x[:, ::2])
    assert out.shape == x.shape


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({}, "set some of its strides to 1"),
        ({"strides": (1, 2, 2)}, "one number per stage"),
        ({"stage_channels": (64, 64, 320, 640)}, "grow"),
        ({"stage_channels": (64, 161, 320, 640)}, "even"),
    ],
)
def test_what_does_not_fit_is_refused(wrong, message):
    with pytest.raises(InputError, match=message):
        ShuffleNet(**wrong, input_shape=(3, 28, 32), num_classes=10)


@pytest.mark.parametrize("notation", ["", PUBLISHED[:-2], PUBLISHED + ",0", PUBLISHED.replace("3", "4"), "0" * 20])
def test_a_wrong_notation_is_refused(full, notation):
    with pytest.raises(InputError, match="20 numbers"):
        full.parse(notation)
