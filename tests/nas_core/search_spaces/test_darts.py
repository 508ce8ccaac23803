"""The DARTS space against published constants and the published rule of deriving a genotype."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nas_core.errors import InputError
from nas_core.ops.cost import count_macs, count_parameters
from nas_core.ops.primitives import Subsample
from nas_core.search_spaces.darts import DartsSpace
from nas_core.search_spaces.darts_cells import EDGES, OPERATIONS, FactorizedReduce, cell_operation
from nas_core.search_spaces.genotype import parse_genotype
from nas_core.seeding import generator

# The published cells of DARTS, first (V1) and second order (V2), as the reference code writes them.
V1 = (
    "Genotype(normal=[('sep_conv_3x3', 1), ('sep_conv_3x3', 0), ('skip_connect', 0), ('sep_conv_3x3', 1), "
    "('skip_connect', 0), ('sep_conv_3x3', 1), ('sep_conv_3x3', 0), ('skip_connect', 2)], normal_concat=[2, 3, 4, 5], "
    "reduce=[('max_pool_3x3', 0), ('max_pool_3x3', 1), ('skip_connect', 2), ('max_pool_3x3', 0), ('max_pool_3x3', 0), "
    "('skip_connect', 2), ('skip_connect', 2), ('avg_pool_3x3', 0)], reduce_concat=[2, 3, 4, 5])"
)
V2 = (
    "Genotype(normal=[('sep_conv_3x3', 0), ('sep_conv_3x3', 1), ('sep_conv_3x3', 0), ('sep_conv_3x3', 1), "
    "('sep_conv_3x3', 1), ('skip_connect', 0), ('skip_connect', 0), ('dil_conv_3x3', 2)], normal_concat=[2, 3, 4, 5], "
    "reduce=[('max_pool_3x3', 0), ('max_pool_3x3', 1), ('skip_connect', 2), ('max_pool_3x3', 1), ('max_pool_3x3', 0), "
    "('skip_connect', 2), ('skip_connect', 2), ('max_pool_3x3', 1)], reduce_concat=[2, 3, 4, 5])"
)


def make(channels: int, cells: int, subspace="none", **values) -> DartsSpace:
    sizes = {"channels": channels, "cells": cells, "network_channels": channels, "network_cells": cells}
    return DartsSpace(subspace, **(sizes | {"input_shape": (3, 32, 32), "num_classes": 10} | values))


def everywhere(name: str) -> str:
    pairs = [(name, source) for _ in range(4) for source in range(2)]
    return f"Genotype(normal={pairs}, normal_concat=range(2, 6), reduce={pairs}, reduce_concat=range(2, 6))"


@pytest.fixture(scope="module")
def small() -> DartsSpace:
    return make(4, 3, input_shape=(3, 8, 8))


@pytest.mark.parametrize(
    ("subspace", "channels", "cells", "parameters", "macs"),
    [
        ("none", 16, 8, 1_930_618, 300.3),
        ("none", 8, 5, 394_210, 61.6),
        ("none", 4, 5, 136_182, 22.9),
        ("s1", 16, 8, 405_146, 68.4),
        ("s1", 8, 5, 71_138, 12.8),
        ("s1", 4, 5, 23_382, 4.4),
        ("s2", 16, 8, 665_466, 100.9),
        ("s2", 4, 5, 38_294, 6.3),
        ("s3", 16, 8, 665_466, 100.9),
        ("s3", 8, 5, 124_962, 19.2),
        ("s4", 16, 8, 624_506, 96.7),
        ("s4", 8, 5, 114_722, 18.1),
        ("s4", 4, 5, 35_734, 6.0),
    ],
)
def test_size_of_the_supernet(subspace, channels, cells, parameters, macs):
    """DARTS: the published 1.93M; S1 and S3: the counts in RobustDARTS' logs."""
    space = make(channels, cells, subspace)
    with torch.device("meta"):
        assert count_parameters(space.supernet()) == parameters
    costs = space.macs_table
    fixed, table = costs.fixed, costs.operations
    assert round((fixed + sum(map(sum, table))) / 1e6, 1) == macs


@pytest.mark.parametrize(
    ("notation", "channels", "cells", "parameters", "macs"),
    [
        (V2, 16, 8, 246_106, 43.4),
        (V2, 8, 5, 37_018, 7.4),
        (V2, 36, 20, 3_349_342, 528.4),
        (V1, 36, 20, 3_169_414, 501.0),
        (everywhere("skip_connect"), 36, 20, 1_580_950, 248.5),
        (everywhere("sep_conv_3x3"), 36, 20, 4_701_718, 711.7),
    ],
)
def test_size_of_the_network(notation, channels, cells, parameters, macs):
    space = make(channels, cells)
    architecture = space.parse(notation)
    with torch.device("meta"):
        assert count_parameters(space.network(architecture)) == parameters
    assert round(space.macs(space.choices(architecture)) / 1e6, 1) == macs


@pytest.mark.parametrize(
    ("subspace", "per_cell"),
    [("none", 180 * 7**8), ("s1", 46_080), ("s2", 46_080), ("s3", 46_080), ("s4", 46_080)],
)
def test_number_of_architectures(subspace, per_cell):
    """Per cell 180 ways to choose inputs, and eight operations: 1.04e9 for DARTS, whose `none` is never chosen."""
    space = make(4, 3, subspace)
    assert math.prod(len(decision.options) for decision in space.decisions[:4]) == per_cell
    assert space.size == per_cell**2


def test_edges_of_s1():
    """Edge 5 (4<-0) of the normal cell pools or skips; edge 6 (4<-1) of the reduction cell pools or convolves."""
    slots = make(4, 3, "s1").slots
    assert all(len(slot.operations) == 2 for slot in slots)
    assert (slots[5].name, slots[5].operations) == ("normal 4<-0", ("max_pool_3x3", "skip_connect"))
    assert (slots[20].name, slots[20].operations) == ("reduce 4<-1", ("max_pool_3x3", "sep_conv_3x3"))
    assert slots[13].operations == ("dil_conv_3x3", "dil_conv_5x5")


def published_rule(probabilities: torch.Tensor) -> list[tuple[str, ...] | str]:
    """The reference code's parse: per node, edges by their largest probability that is not of `none`; two stay."""
    chosen: list[tuple[str, ...] | str] = []
    for node in range(2, 6):
        rows = [edge for edge, (target, _) in enumerate(EDGES) if target == node]
        ranked = sorted(rows, key=lambda row: -max(probabilities[row, 1:]).item())[:2]
        chosen += [OPERATIONS[1 + int(probabilities[row, 1:].argmax())] if row in ranked else () for row in rows]
    return chosen


@settings(max_examples=15)
@given(seed=st.integers(0, 10**6), scale=st.sampled_from([1e-3, 1.0, 5.0]))
def test_the_best_architecture_is_the_published_genotype(small, seed, scale):
    alpha = scale * torch.randn(28, 8, generator=generator(seed, "alpha"), dtype=torch.float64)
    found = small.architecture(small.best(alpha.log_softmax(dim=1).tolist(), None))
    probabilities = alpha.softmax(dim=1)
    assert list(found.operations) == published_rule(probabilities[:14]) + published_rule(probabilities[14:])


def test_a_strong_none_keeps_an_edge_weak(small):
    """Edge 3<-0 prefers a convolution to the other operations more than the rest do, but `none` takes nearly all."""
    alpha = torch.zeros(28, 8)
    alpha[2, 4], alpha[2, 0] = 3.0, 9.0
    alpha[3, 4] = alpha[4, 4] = 1.0
    found = small.architecture(small.best(alpha.log_softmax(dim=1).tolist(), None))
    assert found.operations[2:5] == ((), "sep_conv_3x3", "sep_conv_3x3")


@pytest.mark.parametrize("notation", [V1, V2])
def test_published_genotypes_are_read_and_written(notation, small):
    """The notation has one order of a node's edges; what it means stays."""
    architecture = small.parse(notation)
    assert small.parse(str(architecture)) == architecture
    written, given_ = parse_genotype(str(architecture)), parse_genotype(notation)
    assert written == given_
    assert "range(2, 6)" in str(architecture)


@pytest.mark.parametrize(
    "wrong",
    [
        V1.replace("('sep_conv_3x3', 1)", "('sep_conv_3x3', 0)", 1),
        V1.replace("('sep_conv_3x3', 1)", "('sep_conv_3x3', 2)", 1),
        V1.replace("sep_conv_3x3", "none"),
        V1.replace("sep_conv_3x3", "conv_9x9"),
        V1.replace("[2, 3, 4, 5]", "[3, 4, 5]"),
        V1.replace("[2, 3, 4, 5]", "range(0, 10**12)"),
        V1.replace("[2, 3, 4, 5]", "__import__('os').getcwd()"),
        V1.replace("Genotype", "print"),
        V1.replace("normal=", "normal=*", 1),
        V1[:-1],
        "Genotype()",
        "Genotype(normal={[]: 1}, normal_concat=range(2, 6), reduce=[], reduce_concat=range(2, 6))",
    ],
)
def test_a_wrong_genotype_is_refused(small, wrong):
    with pytest.raises(InputError):
        small.parse(wrong)


def test_a_restriction_that_leaves_a_node_one_edge_is_refused(small):
    with pytest.raises(InputError, match="no legal choice"):
        small.restrict({0: ["none"]})


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("side", [7, 8])
def test_strided_operations_halve_the_map_and_round_up(name, side):
    x = torch.rand(2, 4, side, side + 2)
    for search in (False, True):
        shape = cell_operation(name, 4, 2, search)(x).shape
        assert shape == (2, 4, 4, -(-(side + 2) // 2))


def test_factorized_reduce_sees_even_and_odd_pixels():
    """With weights of one, channel 0 holds pixels (0, 0), (0, 2), ... and channel 1 pixels (1, 1), (1, 3), ..."""
    layer = FactorizedReduce(1, 2, affine=False)
    torch.nn.init.ones_(layer.even.weight)
    torch.nn.init.ones_(layer.odd.weight)
    layer.norm = torch.nn.Identity()
    x = torch.arange(16.0).reshape(1, 1, 4, 4)
    assert layer(x)[0].tolist() == [[[0, 2], [8, 10]], [[5, 7], [13, 15]]]


def test_the_auxiliary_classifier_is_no_part_of_the_network():
    """Its 2 x 2 map after pooling is the reference code's at 32 x 32 pixels."""
    space = make(4, 3)
    architecture = space.parse(V2)
    network = space.network(architecture)
    logits, features = network.with_features(torch.rand(2, 3, 32, 32))
    head = network.auxiliary_classifier()
    assert logits.shape == head(features).shape == (2, 10)
    assert count_parameters(head) == 64 * 128 + 2 * 128 + 128 * 768 * 4 + 2 * 768 + 768 * 10 + 10
    assert count_macs(network, (3, 32, 32)) == space.macs(space.choices(architecture))


@pytest.mark.parametrize("wrong", [{"cells": 2}, {"network_cells": 1}])
def test_networks_of_reduction_cells_alone_are_refused(wrong):
    """Reduction cells are at one and two thirds of the depth: of two cells both are."""
    with pytest.raises(InputError, match="both must be at least 3, because of fewer all are reduction cells"):
        DartsSpace(**wrong, input_shape=(3, 32, 32), num_classes=10)


@pytest.mark.parametrize(("smallest", "stem"), [(29, "cifar"), (193, "imagenet")])
def test_images_too_small_for_the_auxiliary_classifier_are_refused(smallest, stem):
    make(4, 8, input_shape=(3, smallest, smallest), stem=stem).check_auxiliary()
    space = make(4, 8, input_shape=(3, smallest - 1, smallest), stem=stem)
    with pytest.raises(InputError, match=rf"at least {smallest} x {smallest}.*retrain.auxiliary_weight"):
        space.check_auxiliary()


@pytest.mark.parametrize("stem", ["cifar", "imagenet"])
def test_what_is_outside_the_edges_has_no_operation_on_them(stem):
    """Or a latency table would count it in every network. Two edges per node are left, which give it its shape."""
    [skeleton], _ = make(4, 6, stem=stem, input_shape=(3, 33, 40)).parts()
    network = skeleton.make()
    assert network(torch.rand(2, 3, 33, 40)).shape == (2, 10)
    for cell in network.cells:
        assert len(cell.edges) == 2 * 4
        assert {type(edge) for edge in cell.edges.values()} <= {torch.nn.Identity, Subsample}
        pools = (torch.nn.AvgPool2d, torch.nn.MaxPool2d)
        assert not any(isinstance(part, pools) for part in cell.modules())


def test_imagenet_stem_takes_an_eighth():
    """The published 4.7M parameters of V2 with C48 L14; its convolutions and classifier counted layer by layer."""
    space = make(48, 14, stem="imagenet", input_shape=(3, 224, 224), num_classes=1000)
    architecture = space.parse(V2)
    with torch.device("meta"):
        assert count_parameters(space.network(architecture)) == 4_718_752
    assert space.macs(space.choices(architecture)) == 529_911_552


def test_a_deeper_supernet_has_the_same_architectures(small):
    deeper = small.deepened(3)
    assert len(deeper.supernet().cells) == 6
    assert len(small.supernet().cells) == 3
    assert deeper.slots == small.slots


@pytest.mark.parametrize("convolved", EDGES)
def test_connected_cells_of_s4_depend_on_an_input(convolved):
    """Said by the cell itself, with a convolution on one edge and noise on the others: that edge is from an input."""
    space, x = make(2, 3, "s4", input_shape=(3, 8, 8)), torch.rand(1, 6, 8, 8, requires_grad=True)
    target, source = convolved
    pairs = []
    for node in range(2, 6):
        kept = (source, int(source == 0)) if node == target else (0, 1)
        pairs += [("sep_conv_3x3" if (node, other) == convolved else "noise", other) for other in sorted(kept)]
    whole = [("sep_conv_3x3", source) for _ in range(4) for source in range(2)]
    first, second = (
        space.parse(f"Genotype(normal={normal}, normal_concat=range(2, 6), reduce={reduce}, reduce_concat=range(2, 6))")
        for normal, reduce in ((pairs, whole), (whole, pairs))
    )
    [slope] = torch.autograd.grad(space.network(first).cells[0](x, x).sum(), x, allow_unused=True)
    depends = slope is not None
    assert depends == (source < 2)
    assert space.is_connected(space.choices(first)) == space.is_connected(space.choices(second)) == depends


def test_what_is_found_in_s4_is_connected():
    """However strong noise is, each cell keeps one convolution of an input."""
    space = make(2, 3, "s4", input_shape=(3, 8, 8))
    found = space.best([[0.0, -9.0]] * 28, None)
    assert space.architecture(found).operations.count("sep_conv_3x3") == 2
    assert space.is_connected(found)
    assert all(space.is_connected(space.sample(generator(0, "s4", position))) for position in range(50))


def test_noise_is_fresh_in_training_and_repeats_in_evaluation():
    space = make(4, 3, "s4", input_shape=(3, 8, 8))
    supernet = space.supernet()
    x, gates = torch.rand(2, 3, 8, 8), [torch.tensor([1.0, 0.0])] * 28
    assert not torch.equal(supernet(x, gates), supernet(x, gates))
    supernet.eval()
    assert torch.equal(supernet(x, gates), supernet(x, gates))
