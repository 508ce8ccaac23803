"""Proposals are new, distinct and within the budget; they run out when the space does."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nas_core.ops.cost import CostTable
from nas_core.search_spaces.nasbench201 import NasBench201
from nas_core.seeding import generator
from nas_core.strategies import macs_budget
from nas_core.strategies.budget import Budget
from nas_core.strategies.evolution import Evolution, fit

SPACE = NasBench201(4, 1, input_shape=(3, 8, 8), num_classes=4)
SMALL = SPACE.restrict({slot: ["skip_connect", "nor_conv_3x3"] for slot in range(6)})


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 100), share=st.floats(0, 1))
def test_generations_are_new_distinct_and_affordable(seed, share):
    cheapest, dearest = SPACE.macs_range()
    budget = cheapest + round(share * share * (dearest - cheapest))
    evolution = Evolution(population=8, generations=1, parents=3, crossovers=3, mutants=3, mutation_probability=0.3)
    scores = {}
    for generation in range(3):
        proposed = evolution.propose(SPACE, scores, macs_budget(budget), generator(seed, "toy", generation))
        assert len(set(proposed)) == len(proposed) <= 8
        assert not set(proposed) & set(scores)
        assert all(SPACE.macs(choices) <= budget and SPACE.is_connected(choices) for choices in proposed)
        scores |= {choices: float(sum(choices)) for choices in proposed}


def test_generations_are_connected_where_none_costs_less_than_a_skip():
    """Within the cost of two skips beside `none`: the direct one with another, or a way of two."""
    costs = CostTable(0, ((0, 1, 50, 100, 30),) * 6)
    budget = Budget("toy", "max_toy", "units", lambda _: costs, limit=2)
    assert SPACE.cost_range(costs) == (1, 600)
    proposed = Evolution.random(8).propose(SPACE, {}, budget, generator(0, "toy"))
    affordable = {
        path
        for path in itertools.product(range(2), repeat=6)
        if sum(path) <= 2 and (path[3] or (path[0] and path[4]) or (path[1] and path[5]))
    }
    assert len(affordable) == 8
    assert set(proposed) == affordable


def test_random_architectures_are_uniform_among_those_within_a_tight_budget():
    """Of two operations on six edges, those with one convolution at most: seven, of which one has none."""
    costs = CostTable(0, ((0, 1),) * 6)
    budget = Budget("toy", "max_toy", "units", lambda _: costs, limit=1)
    drawn = [Evolution.random(1).propose(SMALL, {}, budget, generator(seed, "toy"))[0] for seed in range(210)]
    # 30 are expected, with a standard deviation of 5.
    assert 10 <= drawn.count((0,) * 6) <= 50
    assert len(set(drawn)) == 7


def test_an_exhausted_space_yields_nothing_more():
    """Two operations on six edges are 64 architectures."""
    evolution = Evolution(population=40, generations=1, parents=5, crossovers=10, mutants=10, mutation_probability=0.1)
    scores = {}
    sizes = []
    for generation in range(4):
        proposed = evolution.propose(SMALL, scores, macs_budget(), generator(0, "toy", generation))
        scores |= dict.fromkeys(proposed, 0.0)
        sizes.append(len(proposed))
    assert len(scores) == 64
    assert sizes == [40, 24, 0, 0]


def test_the_tightest_budget_leaves_the_cheapest_architectures():
    """Only the six skips are affordable, and the very first proposal is that one."""
    cheapest, _ = SMALL.macs_range()
    evolution = Evolution(population=4, generations=1, parents=1, crossovers=0, mutants=0, mutation_probability=0.1)
    assert evolution.propose(SMALL, {}, macs_budget(cheapest), generator(0, "toy")) == [(0,) * 6]


def test_children_come_from_the_best_parents():
    """With one parent and rare mutations a child differs from it in few slots; crossovers of it are all known."""
    evolution = Evolution(population=5, generations=1, parents=1, crossovers=0, mutants=5, mutation_probability=0.05)
    parent = (3, 3, 3, 3, 3, 3)
    scores = {parent: 1.0, (0,) * 6: -1.0}
    children = evolution.propose(SPACE, scores, macs_budget(), generator(0, "toy"))
    assert len(children) == 5
    for child in children:
        assert sum(a == b for a, b in zip(child, parent, strict=True)) >= 4


def test_crossover_takes_every_slot_from_a_parent():
    evolution = Evolution(population=6, generations=1, parents=2, crossovers=6, mutants=0, mutation_probability=0.1)
    scores = {(1,) * 6: 1.0, (3,) * 6: 1.0, (0,) * 6: 0.0}
    children = evolution.propose(SPACE, scores, macs_budget(), generator(0, "toy"))
    assert {choice for child in children for choice in child} == {1, 3}


@pytest.mark.parametrize("budget", [None, 10**12])
def test_an_affordable_architecture_is_left_as_it_is(budget):
    assert fit(SPACE, (3, 3, 3, 0, 1, 2), macs_budget(budget), generator(0, "toy")) == (3, 3, 3, 0, 1, 2)
