"""Which paths a supernet trains."""

import collections
import itertools
import statistics

import pytest
import torch

from nas_core.search_spaces.nasbench201 import NasBench201
from nas_core.strategies.sampling import Fair, MacBins, Uniform


@pytest.fixture(scope="module")
def space() -> NasBench201:
    return NasBench201(4, 1, input_shape=(3, 8, 8), num_classes=4)


def draws() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_fair_paths_hold_every_operation_of_every_slot_once(space):
    sampler, generator = Fair(space), draws()
    assert sampler.paths_per_step == 5
    for _ in range(5):
        paths = sampler.step(generator)
        assert [sorted(column) for column in zip(*paths, strict=True)] == [list(range(5))] * 6


def test_slots_of_fewer_operations_repeat_them_evenly(space):
    """Two operations in five paths: three times the one and twice the other."""
    narrow = space.restrict({2: ["none", "skip_connect"]})
    column = [path[2] for path in Fair(narrow).step(draws())]
    assert sorted(collections.Counter(column).values()) == [2, 3]


def test_bins_span_the_mean_cost_plus_and_minus_three_deviations(space):
    """Of uniform choices: all 15,625 of five operations on six edges, also those that connect nothing."""
    costs = [space.macs(path) for path in itertools.product(range(5), repeat=6)]
    mean, spread = statistics.fmean(costs), statistics.pstdev(costs)
    sampler = MacBins(space, 7)
    assert sampler.low == pytest.approx(mean - 3 * spread)
    assert sampler.width == pytest.approx(6 * spread / 7)


def test_bins_are_the_same_where_nothing_is_free():
    """By hand: each edge costs nothing or a convolution, a half on average, with a deviation of a half."""
    space = NasBench201(4, 1, ("none", "nor_conv_3x3"), input_shape=(3, 8, 8), num_classes=4)
    costs = space.macs_table
    convolution = costs.operations[0][1]
    assert MacBins(space, 7).low == pytest.approx(costs.fixed + convolution * (6 / 2 - 3 * 6**0.5 / 2))


def test_bins_make_rare_costs_frequent(space):
    """Far from the mean, uniform paths are few; drawn by bins they are as many as others that exist."""
    costs = space.macs_table
    fixed, table = costs.fixed, costs.operations
    middle = fixed + sum(sum(costs) / len(costs) for costs in table)
    sampler, uniform, generator = MacBins(space, 7), Uniform(space), draws()

    def far(sample) -> int:
        return sum(abs(space.macs(sample.step(generator)[0]) - middle) > 1.5 * sampler.width for _ in range(100))

    assert far(sampler) > far(uniform) + 10


def test_all_paths_of_one_cost_need_no_luck():
    """Only free operations: every bin is empty or holds all."""
    flat = NasBench201(4, 1, ("none", "skip_connect"), input_shape=(3, 8, 8), num_classes=4)
    assert len(MacBins(flat, 7).step(draws())) == 1
