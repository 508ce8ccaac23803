"""Training-free scores against hand-computed values and what the papers say of limit cases."""

import math

import pytest
import torch
from torch import nn

from nas_core.evaluation.zero_cost import WORST, Features, naswot, synflow, training_free_scores, zico
from nas_core.ops.initialisation import initialise
from nas_core.search_spaces import spaces
from nas_core.search_spaces.darts_cells import FactorizedReduce
from nas_core.search_spaces.nasbench201 import NasBench201
from nas_core.search_spaces.proxyless import ProxylessSpace
from nas_core.seeding import generator
from nas_core.training.batches import Batch


class Chain(nn.Module):
    """Blocks in a row, for scores that look at what blocks hand on."""

    def __init__(self, *blocks: nn.Module) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        return x


def images(*values: tuple[float, ...]) -> torch.Tensor:
    """One image per tuple, of one pixel with as many channels."""
    return torch.tensor(values).reshape(len(values), -1, 1, 1)


def test_naswot_counts_the_units_that_agree():
    """Codes 110, 100 and 000: K = [[3, 2, 1], [2, 3, 2], [1, 2, 3]], whose determinant is 8."""
    network = nn.Sequential(nn.ReLU())
    batch = images((1.0, 1.0, -1.0), (1.0, -1.0, -1.0), (-1.0, -1.0, -1.0))
    assert naswot(network, batch) == pytest.approx(math.log(8), rel=1e-6)


def test_naswot_counts_the_relu_of_a_strided_skip():
    """It has the same codes as a ReLU alone."""
    batch = images((1.0, 1.0, -1.0), (1.0, -1.0, -1.0), (-1.0, -1.0, -1.0))
    assert naswot(FactorizedReduce(3, 2, affine=False), batch) == pytest.approx(math.log(8), rel=1e-6)


def test_naswot_of_images_that_no_relu_tells_apart_is_the_worst():
    assert naswot(nn.Sequential(nn.ReLU()), images((1.0, 2.0), (3.0, 4.0))) == WORST


def test_synflow_of_a_linear_chain_is_the_product_of_absolute_weights():
    """Weights (1, -2) then 3, image of ones: R = 3 * (1 + 2) = 9; each layer's saliency is R, so two layers give 18."""
    first, second = nn.Conv2d(2, 1, 1, bias=False), nn.Conv2d(1, 1, 1, bias=False)
    with torch.no_grad():
        first.weight.copy_(torch.tensor([1.0, -2.0]).reshape(1, 2, 1, 1))
        second.weight.fill_(3.0)
    network = nn.Sequential(first, nn.BatchNorm2d(1), second)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    assert synflow(network, torch.zeros(1, 2, 1, 1)) == pytest.approx(math.log(18), rel=1e-12)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_synflow_passes_relu6_where_the_signal_is_large():
    """Weights 3 and 4 on an image of ones: R = 12, above 6, and two layers give 24."""
    network = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False), nn.ReLU6(), nn.Conv2d(1, 1, 1, bias=False), nn.ReLU6())
    nn.init.constant_(network[0].weight, 3.0)
    nn.init.constant_(network[2].weight, 4.0)
    assert synflow(network, torch.zeros(1, 1, 1, 1)) == pytest.approx(math.log(24), rel=1e-12)


def test_synflow_scores_a_larger_mobile_network_higher():
    space = ProxylessSpace((2,), (8,), (1, 2), input_shape=(3, 16, 16), num_classes=4)

    def score(operation: str) -> float:
        network = space.network(space.parse(f"{operation},{operation}"))
        initialise(network, generator(0, "w"))
        return synflow(network, torch.zeros(1, 3, 16, 16))

    assert score("7x7_MBConv6") > score("3x3_MBConv3") + 1


def test_zico_is_mean_over_deviation_of_the_gradients_of_two_halves():
    """A linear layer without classes to choose from but by its logits: gradients of each half by hand.

    Weights 0, so both classes have 1/2; the target is class 0 (logits 100, 0). The gradient of class 0's weight is
    -x / 2 and of class 1's x / 2: halves 1 and 3 give |-0.5|, |-1.5|: mean 1, deviation 0.5, ratio 2, twice.
    """
    network = nn.Sequential(nn.Flatten(), nn.Linear(1, 2, bias=False))
    nn.init.zeros_(network[1].weight)
    logits = torch.tensor([[100.0, 0.0]]).repeat(4, 1)
    score = zico(network, images((1.0,), (1.0,), (3.0,), (3.0,)), logits)
    assert score == pytest.approx(math.log(4), rel=1e-5)


def test_entropy_is_that_of_the_spread_over_directions():
    """Two independent channels of equal variance: log 2. Two copies of one channel: 0."""
    independent = images((1.0, 1.0), (1.0, -1.0), (-1.0, 1.0), (-1.0, -1.0))
    copies = images((1.0, 1.0), (-1.0, -1.0))
    assert Features.of(Chain(nn.Identity()), independent).expressivity() == pytest.approx(math.log(2), abs=1e-6)
    assert Features.of(Chain(nn.Identity()), copies).expressivity() == pytest.approx(0.0, abs=1e-6)


def test_progressivity_is_the_smallest_gain():
    """A block that sums both channels takes all of log 2 away."""
    project = nn.Conv2d(2, 2, 1, bias=False)
    nn.init.ones_(project.weight)
    independent = images((1.0, 1.0), (1.0, -1.0), (-1.0, 1.0), (-1.0, -1.0))
    score = Features.of(Chain(nn.Identity(), project), independent).progressivity()
    assert score == pytest.approx(-math.log(2), abs=1e-5)


def test_trainability_is_best_where_gradients_keep_their_length():
    """A scaled identity has s near its scale: one that scales by 2 or 1/2 is worse than one that flips the sign."""

    def score(scale: float) -> float:
        block = nn.Conv2d(1, 1, 1, bias=False)
        nn.init.constant_(block.weight, scale)
        stem = nn.Conv2d(1, 1, 1, bias=False)
        features = Features.of(Chain(stem, block), torch.randn(8, 1, 4, 4, generator=generator(0, "t")))
        return features.trainability(generator(0, "signs"))

    assert score(-1.0) == pytest.approx(0.0, abs=1e-6)
    assert score(2.0) == pytest.approx(2 - 2 - 1 / 2, abs=1e-6)
    assert score(0.5) == pytest.approx(2 - 0.5 - 2, abs=1e-6)


def test_an_identity_block_trains_nothing_and_scores_worst():
    stem = nn.Conv2d(1, 1, 1)
    features = Features.of(Chain(stem, nn.Identity()), torch.randn(4, 1, 2, 2, generator=generator(0, "t")))
    assert features.trainability(generator(0, "signs")) == WORST


@pytest.mark.parametrize("size", [16, 17])
def test_all_scores_of_a_good_network_are_finite_and_depend_on_seed_only(size: int):
    """Odd sizes too, where the halves of a feature map are not whole."""
    space = NasBench201(4, 1, input_shape=(3, size, size), num_classes=4)
    text = "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|skip_connect~0|nor_conv_3x3~1|nor_conv_3x3~2|"
    network = space.network(space.parse(text))
    draws = generator(0, "i")
    batch = Batch(torch.randn(8, 3, size, size, generator=draws), torch.randn(8, 4, generator=draws))
    names = ("naswot", "synflow", "zico", "expressivity", "progressivity", "trainability")

    def scores() -> dict[str, float]:
        initialise(network, generator(0, "w"))
        return training_free_scores(network, batch, names, generator(0, "s"))

    first = scores()
    assert tuple(first) == names
    assert all(map(math.isfinite, first.values()))
    assert scores() == first


def test_a_network_without_a_path_scores_worst_but_does_not_fail():
    space = NasBench201(4, 1, input_shape=(3, 8, 8), num_classes=4)
    network = space.network(space.parse("|none~0|+|none~0|none~1|+|none~0|none~1|none~2|"))
    initialise(network, generator(0, "w"))
    draws = generator(0, "i")
    batch = Batch(torch.randn(8, 3, 8, 8, generator=draws), torch.randn(8, 4, generator=draws))
    found = training_free_scores(network, batch, ("zico", "progressivity", "trainability"), generator(0, "s"))
    assert found["progressivity"] == found["trainability"] == WORST


@pytest.mark.parametrize("name", spaces.names())
def test_the_blocks_of_every_space_are_found(name: str):
    space = spaces.build(spaces.spec(name)(), input_shape=(3, 32, 32), num_classes=4)
    architecture = space.architecture(space.sample(generator(0, "a")))
    with torch.device("meta"):
        network = space.network(architecture)
        features = Features.of(network, torch.empty(2, 3, 32, 32))
    assert len(features.outputs) >= 9
    assert all(output.ndim == 4 for output in features.outputs)
