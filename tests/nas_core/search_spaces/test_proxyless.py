"""The MobileNetV2 space of ProxylessNAS against counted constants."""

import pytest
import torch

from nas_core.errors import InputError
from nas_core.ops.cost import count_parameters
from nas_core.search_spaces.proxyless import ProxylessSpace


@pytest.fixture(scope="module")
def full() -> ProxylessSpace:
    return ProxylessSpace(input_shape=(3, 224, 224), num_classes=1000)


@pytest.mark.parametrize(
    ("name", "macs", "parameters"),
    [
        ("3x3_MBConv3", 257.4, 3.192),
        ("3x3_MBConv6", 472.6, 4.685),
        ("5x5_MBConv3", 284.2, 3.276),
        ("5x5_MBConv6", 526.2, 4.852),
        ("7x7_MBConv3", 324.4, 3.401),
        ("7x7_MBConv6", 606.6, 5.103),
    ],
)
def test_uniform_networks(full, name, macs, parameters):
    architecture = full.parse(",".join([name] * 21))
    assert round(full.macs(full.choices(architecture)) / 1e6, 1) == macs
    with torch.device("meta"):
        assert round(count_parameters(full.network(architecture)) / 1e6, 3) == parameters


def test_the_smallest_network(full):
    """102.5M multiply-accumulates and 2.155M parameters: Zero wherever it may be."""
    smallest, _ = full.macs_range()
    choices = full.best([[0.0] * len(slot.operations) for slot in full.slots], smallest)
    architecture = full.architecture(choices)
    assert round(smallest / 1e6, 1) == 102.5
    assert architecture.operations.count("Zero") == 15
    with torch.device("meta"):
        assert round(count_parameters(full.network(architecture)) / 1e6, 3) == 2.155


def test_number_of_architectures(full):
    """Fifteen of the 21 blocks can be left out."""
    assert full.size == 6**6 * 7**15


def test_zero_leaves_the_identity():
    space = ProxylessSpace((1, 2), (4, 8), (1, 1, 1), input_shape=(1, 8, 8), num_classes=2)
    supernet = space.supernet().eval()
    x = torch.rand(1, 8, 8, 8)
    assert torch.equal(supernet.blocks[2](x, 6), x)
    assert len(space.network(space.parse("3x3_MBConv3,3x3_MBConv3,Zero")).blocks) == 2


def test_a_block_that_changes_the_shape_cannot_be_left_out(full):
    with pytest.raises(InputError, match="does not offer 'Zero'"):
        full.parse(",".join(["Zero"] * 21))


@pytest.mark.parametrize(
    ("wrong", "message"), [({}, "set some of its strides to 1"), ({"strides": (1, 2, 2)}, "one number per stage")]
)
def test_what_does_not_fit_is_refused(wrong, message):
    with pytest.raises(InputError, match=message):
        ProxylessSpace(**wrong, input_shape=(3, 28, 32), num_classes=10)
