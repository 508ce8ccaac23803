"""The NAS-Bench-201 space against the benchmark's published constants."""

import collections
import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from nas_core.errors import InputError
from nas_core.ops.cost import CostTable, count_macs, count_parameters
from nas_core.ops.initialisation import initialise
from nas_core.search_spaces import rebuild_network, spaces
from nas_core.search_spaces.nasbench201 import EDGES, OPERATIONS, NasBench201
from nas_core.seeding import generator
from nas_core.settings.spaces import NasBench201Spec

BEST = "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|skip_connect~0|nor_conv_1x1~1|nor_conv_3x3~2|"


@pytest.fixture(scope="module")
def full() -> NasBench201:
    return NasBench201(16, 5, input_shape=(3, 32, 32), num_classes=10)


@pytest.fixture(scope="module")
def small() -> NasBench201:
    return NasBench201(4, 1, input_shape=(1, 8, 8), num_classes=3)


def uniform(space: NasBench201, name: str):
    return space.architecture([OPERATIONS.index(name)] * len(EDGES))


@pytest.mark.parametrize(
    ("name", "parameters", "macs"), [("skip_connect", 73_306, 7_783_040), ("nor_conv_3x3", 1_531_546, 220_119_680)]
)
def test_published_size_of_uniform_networks(full, name, parameters, macs):
    """0.073306M / 7.783M for the bare skeleton, 1.531546M / 220.12M for 3x3 convolutions everywhere."""
    architecture = uniform(full, name)
    network = full.network(architecture)
    assert count_parameters(network) == parameters
    assert count_macs(network, (3, 32, 32)) == full.macs(full.choices(architecture)) == macs


def test_published_size_of_the_best_network(full):
    """1.073M parameters and 153.27M multiply-accumulates for the best architecture on CIFAR-10."""
    architecture = full.parse(BEST)
    assert round(count_parameters(full.network(architecture)) / 1e6, 3) == 1.073
    assert round(full.macs(full.choices(architecture)) / 1e6, 2) == 153.27


def test_published_size_of_the_supernet(full):
    """1.686106M parameters; all operations together take 243.7M multiply-accumulates."""
    costs = full.macs_table
    fixed, table = costs.fixed, costs.operations
    assert count_parameters(full.supernet()) == 1_686_106
    assert round((fixed + sum(map(sum, table))) / 1e6, 1) == 243.7


@pytest.mark.parametrize(("channels", "cells", "macs"), [(16, 1, 55.0), (8, 2, 25.6), (8, 1, 13.9), (4, 1, 3.5)])
def test_published_cost_of_small_supernets(channels, cells, macs):
    costs = NasBench201(channels, cells, input_shape=(3, 32, 32), num_classes=10).macs_table
    fixed, table = costs.fixed, costs.operations
    assert round((fixed + sum(map(sum, table))) / 1e6, 1) == macs


choices = st.tuples(*[st.integers(0, len(OPERATIONS) - 1)] * len(EDGES))


@settings(max_examples=8, deadline=None)
@given(choices=choices, height=st.integers(1, 20), width=st.integers(1, 20), cells=st.integers(1, 2))
def test_cost_table_equals_the_counted_network(choices, height, width, cells):
    space = NasBench201(3, cells, input_shape=(2, height, width), num_classes=7)
    network = space.network(space.architecture(choices))
    assert space.macs(choices) == count_macs(network, space.input_shape)
    cheapest, dearest = space.macs_range()
    assert cheapest <= space.macs(choices) <= dearest


@settings(deadline=None)
@given(choices=choices)
def test_notation_round_trip(small, choices):
    architecture = small.architecture(choices)
    assert small.parse(str(architecture)) == architecture
    assert small.choices(architecture) == choices


def test_notation_of_the_best_architecture(small):
    architecture = small.parse(BEST)
    assert architecture.operations == ("nor_conv_3x3",) * 3 + ("skip_connect", "nor_conv_1x1", "nor_conv_3x3")
    assert str(architecture) == BEST


@pytest.mark.parametrize(
    "notation",
    ["", BEST[:-1], BEST.replace("~2", "~0"), BEST.replace("+", ""), BEST + "|none~0|", BEST.replace("1x1", "5x5")],
)
def test_a_wrong_notation_is_refused(small, notation):
    with pytest.raises(InputError):
        small.parse(notation)


@settings(max_examples=10, deadline=None)
@given(choices=choices)
def test_an_index_and_a_one_hot_vector_run_the_same_path(small, choices):
    supernet = small.supernet().eval()
    initialise(supernet, generator(0, "weights"))
    x = torch.randn(2, 1, 8, 8, generator=generator(0, "x"))
    one_hot = [torch.eye(len(OPERATIONS))[choice] for choice in choices]
    torch.testing.assert_close(supernet(x, one_hot), supernet(x, choices))


def test_a_path_computes_and_trains_nothing_of_the_others(small):
    supernet = small.supernet()
    ran = []
    for name, module in supernet.named_modules():
        if ".operations." in name and name.rsplit(".", 1)[1].isdigit() and name.rsplit(".", 2)[1] == "operations":
            module.register_forward_hook(lambda *_, name=name: ran.append(name))
    path = (3, 1, 0, 2, 4, 3)
    supernet(torch.rand(2, 1, 8, 8), path).sum().backward()
    assert len(ran) == len(EDGES) * 3
    for name, parameter in supernet.named_parameters():
        if ".operations." in name:
            edge, operation = name.split(".edges.")[1].split(".operations.")
            assert (parameter.grad is not None) == (path[int(edge)] == int(operation.split(".")[0]))


def test_node_is_the_sum_of_its_edges(small):
    """With skips everywhere nodes are x, x, 2x, 4x, so a cell multiplies by 4."""
    cell = small.network(uniform(small, "skip_connect")).body[0]
    x = torch.rand(1, 4, 5, 5)
    torch.testing.assert_close(cell(x), 4 * x)


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 7, 7), (2, 8, 8), (3, 5, 12)])
def test_any_size_and_number_of_channels_works(shape):
    space = NasBench201(4, 1, input_shape=shape, num_classes=3)
    x = torch.rand(2, *shape)
    assert space.network(uniform(space, "nor_conv_3x3"))(x).shape == (2, 3)
    assert space.supernet()(x, (3,) * 6).shape == (2, 3)


def test_restriction_keeps_order_and_meaning(small):
    restricted = small.restrict({0: ["nor_conv_3x3", "none"], 5: ["skip_connect"]})
    assert restricted.slots[0].operations == ("none", "nor_conv_3x3")
    assert [len(slot.operations) for slot in restricted.slots] == [2, 5, 5, 5, 5, 1]
    assert [len(slot.operations) for slot in small.slots] == [5] * 6
    architecture = restricted.architecture((1, 0, 0, 0, 0, 0))
    assert architecture.operations[0] == "nor_conv_3x3"
    assert small.parse(str(architecture)) == architecture
    assert small.macs(small.choices(architecture)) == restricted.macs(restricted.choices(architecture))
    with pytest.raises(InputError, match="does not offer 'nor_conv_1x1'"):
        restricted.parse(str(uniform(small, "nor_conv_1x1")))


@pytest.mark.parametrize("allowed", [{6: ["none"]}, {-1: ["none"]}, {0: []}, {0: ["sep_conv_3x3"]}])
def test_an_impossible_restriction_is_refused(small, allowed):
    with pytest.raises(InputError):
        small.restrict(allowed)


def test_operations_restrict_every_edge():
    space = NasBench201(4, 1, ("nor_conv_3x3", "skip_connect"), input_shape=(3, 8, 8), num_classes=2)
    assert {slot.operations for slot in space.slots} == {("skip_connect", "nor_conv_3x3")}


def every(space: NasBench201):
    return itertools.product(*[range(len(slot.operations)) for slot in space.slots])


@pytest.fixture(scope="module")
def connected(small) -> list[tuple[int, ...]]:
    return list(filter(small.is_connected, every(small)))


def test_connected_is_whose_output_depends_on_the_input(small):
    """Said by the cells themselves, with `none` or a skip on each edge: what passes is a multiple of the input."""
    x = torch.rand(1, 4, 8, 8, generator=generator(0, "x"))
    for path in itertools.product((0, 1), repeat=6):
        cell = small.network(small.architecture(path)).body[0]
        assert bool(cell(x).any()) == small.is_connected(path)


def test_samples_are_uniform_over_connected_architectures(small, connected):
    """15,284 of all; of cells of skips and `none`, each as often as any other."""
    assert len(connected) == 15_284
    skips = small.restrict({edge: ["none", "skip_connect"] for edge in range(6)})
    some = list(filter(skips.is_connected, every(skips)))
    assert len(some) == 32 + 15  # with the direct edge, and without it by the other three ways
    draws = generator(0, "sample")
    counts = collections.Counter(skips.sample(draws) for _ in range(4700))
    assert set(counts) == set(some)
    assert all(abs(count - 100) < 50 for count in counts.values())


@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 1000), lead=st.floats(0, 3), share=st.floats(0, 1), latency=st.booleans())
def test_the_best_is_the_best_connected_one(small, connected, seed, lead, share, latency):
    """Also where `none` leads on every edge, under any budget, of latency too: against a look at all of them."""
    costs = CostTable(0, ((0, 1, 50, 100, 30),) * 6) if latency else small.macs_table
    scores = torch.randn(6, 5, generator=generator(seed, "scores"), dtype=torch.float64)
    scores[:, 0] += lead
    rows = scores.tolist()
    cheapest, dearest = small.cost_range(costs)
    limit = cheapest + round(share * share * (dearest - cheapest))
    best = small.best(rows, limit, costs)
    assert small.is_connected(best)
    assert costs.of(best) <= limit

    def total(path):
        return sum(row[choice] for row, choice in zip(rows, path, strict=True))

    assert total(best) == pytest.approx(max(total(path) for path in connected if costs.of(path) <= limit))


def test_nothing_is_left_where_every_way_is_cut(small):
    """`none` alone into the output, or on both ways that remain."""
    for cut in ({3: ["none"], 4: ["none"], 5: ["none"]}, {edge: ["none"] for edge in range(6)}):
        with pytest.raises(InputError, match="depends on its input"):
            small.restrict(cut)
    one_way = small.restrict({3: ["none"], 4: ["none"], 0: ["none"]})
    best = one_way.architecture(
        one_way.best([[float(op == "none") for op in s.operations] for s in one_way.slots], None)
    )
    assert [name == "none" for name in best.operations] == [True, False, True, True, True, False]
    with pytest.raises(InputError, match="`none` alone"):
        NasBench201(4, 1, ("none",), input_shape=(3, 8, 8), num_classes=2)


@pytest.mark.parametrize("values", [{"operations": []}, {"operations": ["max_pool"]}, {"channels": 0}, {"cells": 0}])
def test_the_config_section_is_bounded(values):
    with pytest.raises(ValidationError):
        NasBench201Spec.model_validate(values)


@pytest.mark.parametrize(
    "wrong", [{"input_shape": (3, 0, 8)}, {"num_classes": 0}, {"operations": ["conv"]}, {"cells": 0}]
)
def test_wrong_input_is_refused(wrong):
    with pytest.raises(InputError):
        NasBench201(**({"input_shape": (3, 8, 8), "num_classes": 2} | wrong))


def test_a_network_is_rebuilt_from_plain_values():
    spec = NasBench201Spec(channels=4, cells=1)
    built = spaces.build(spec, input_shape=(1, 8, 8), num_classes=3)
    network = built.network(built.parse(BEST))
    rebuilt = rebuild_network(spec.model_dump(mode="json"), (1, 8, 8), 3, BEST)
    rebuilt.load_state_dict(network.state_dict())
    x = torch.rand(2, 1, 8, 8)
    assert torch.equal(rebuilt.eval()(x), network.eval()(x))
