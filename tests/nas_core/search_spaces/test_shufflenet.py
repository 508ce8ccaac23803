"""The ShuffleNetV2 space against the look-up table of Single Path One-Shot."""

import pytest
import torch

from nas_core.errors import InputError
from nas_core.ops.batch_norm import recalibrate
from nas_core.ops.cost import count_parameters
from nas_core.ops.initialisation import initialise
from nas_core.search_spaces import spaces
from nas_core.search_spaces.shufflenet import ShuffleNet
from nas_core.search_spaces.shufflenet_blocks import KINDS, Block, Operation, Place, shared_blocks
from nas_core.seeding import generator

PUBLISHED = "2,1,0,1,2,0,2,0,2,0,2,3,0,0,0,0,3,2,3,3"
# The published factors of channel search.
FACTORS = (0.2, 0.4, 0.5, 0.6, 0.8, 1.0, 1.2, 1.4, 1.5, 1.6)
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


@pytest.mark.parametrize("kind", KINDS)
def test_even_channels_pass_by(kind):
    x = torch.rand(2, 8, 5, 5)
    out = Block(Operation(kind), Place(8, 8, 1, (8, 5, 5)), affine=True)(x)
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


@pytest.fixture(scope="module")
def wide() -> ShuffleNet:
    return ShuffleNet(channel_factors=(0.2, 0.5, 1.0, 1.6), input_shape=(3, 224, 224), num_classes=1000)


def test_channel_search_multiplies_the_choices_of_a_block():
    assert ShuffleNet(channel_factors=FACTORS, input_shape=(3, 224, 224), num_classes=1000).size == (4 * 10) ** 20


def test_the_usual_width_costs_what_it_did(full, wide):
    assert wide.macs(wide.choices(wide.parse(PUBLISHED))) == full.macs(full.choices(full.parse(PUBLISHED)))
    assert wide.macs_range()[0] < full.macs_range()[0]


@pytest.mark.parametrize(
    ("kind", "factor", "macs"),
    [
        # 64 channels at 56 x 56, of which 32 pass by. 16 inner ones: (32 + 9 + 32) for each, per pixel.
        ("shuffle_3x3", 0.5, 56 * 56 * 16 * (32 + 9 + 32)),
        # 0.2 of 32 is 6.4: six.
        ("shuffle_7x7", 0.2, 56 * 56 * 6 * (32 + 49 + 32)),
        # Depthwise and 1 x 1 three times, of 32, 16 and 16 channels to 16, 16 and 32.
        ("xception", 0.5, 56 * 56 * (32 * (9 + 16) + 16 * (9 + 16) + 16 * (9 + 32))),
        ("shuffle_5x5", 1.6, 56 * 56 * 51 * (32 + 25 + 32)),
    ],
)
def test_cost_of_a_width(wide, kind, factor, macs):
    name = str(Operation(kind, factor))
    assert wide.macs_table.operations[1][wide.slots[1].operations.index(name)] == macs


def test_notation_of_widths(wide):
    """The plain list means half of a block's channels inside, as ever."""
    factors = [wide.channel_factors[index % 4] for index in range(20)]
    notation = f"{PUBLISHED};{','.join(f'{factor:g}' for factor in factors)}"
    architecture = wide.parse(notation)
    assert str(architecture) == notation
    assert architecture.operations[:2] == ("shuffle_7x7*0.2", "shuffle_5x5*0.5")
    assert wide.parse(f"[{PUBLISHED}]; {factors}") == architecture
    assert str(wide.parse(f"{PUBLISHED};{','.join(['1.0'] * 20)}")) == PUBLISHED


@pytest.mark.parametrize("factors", ["1", "0.7" + ",1" * 19, "x" + ",1" * 19, "1e9" + ",1" * 19, ",".join(["1"] * 21)])
def test_widths_that_are_not_offered_are_refused(wide, factors):
    with pytest.raises(InputError):
        wide.parse(f"{PUBLISHED};{factors}")


@pytest.mark.parametrize("factors", [[1, 0.5], [1, 1], [0.0], [5], [], [0.33333333]])
def test_wrong_factors_are_refused(factors):
    with pytest.raises(ValueError, match="channel_factors"):
        spaces.spec("shufflenet").model_validate({"name": "shufflenet", "channel_factors": factors})


def test_a_factor_that_leaves_nothing_is_refused():
    with pytest.raises(InputError, match="leave a block of 18 channels without any inside"):
        ShuffleNet((1,), (18,), (1, 1), channel_factors=(0.1,), input_shape=(3, 8, 8), num_classes=2)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("place", [Place(8, 12, 2, (8, 6, 6)), Place(12, 12, 1, (12, 6, 6))])
def test_a_narrow_block_is_the_block_of_the_leading_weights(kind, place):
    """In training and, after its statistics were gathered, in evaluation; the widest has six inner channels."""
    narrow, wide = shared_blocks([Operation(kind, 0.5), Operation(kind)], place)
    initialise(wide, generator(0, "wide"))
    alone = Block(Operation(kind, 0.5), place, affine=False)
    held = dict(wide.named_parameters())
    with torch.no_grad():
        for name, parameter in alone.named_parameters():
            parameter.copy_(held[name][tuple(map(slice, parameter.shape))])
    x = torch.randn(4, *place.input_shape, generator=generator(0, "x"))
    torch.testing.assert_close(narrow(x), alone(x))
    for block in (narrow, alone):
        recalibrate(block, block, [x, x + 1])
    torch.testing.assert_close(narrow(2 * x), alone(2 * x))


def test_a_width_trains_the_leading_channels_of_the_shared_weights():
    """3 of 6 inner channels: rows of the first layer, columns of the last; their kind has one set of weights."""
    place = Place(12, 12, 1, (12, 4, 4))
    narrow, wide, other = shared_blocks([Operation(KINDS[0], 0.5), Operation(KINDS[0]), Operation(KINDS[1])], place)
    initialise(wide, generator(0, "wide"))
    narrow(torch.randn(4, 12, 4, 4, generator=generator(0, "x"))).square().sum().backward()
    first, _, last = (layer[0].weight.grad for layer in wide.main)
    assert first[:3].abs().sum() > 0
    assert last[:, :3].abs().sum() > 0
    assert not first[3:].any()
    assert not last[:, 3:].any()
    assert set(map(id, narrow.parameters())) == set(map(id, wide.parameters()))
    assert all(parameter.grad is None for parameter in other.parameters())
