"""The exact knapsack against brute force."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nas_core.ops.knapsack import best_choices

options = st.lists(st.tuples(st.integers(-50, 50), st.integers(0, 30)), min_size=1, max_size=4)


@settings(deadline=None)
@given(decisions=st.lists(options, min_size=1, max_size=5), slack=st.integers(0, 60))
def test_result_is_the_exact_maximum(decisions, slack):
    scores = [[float(score) for score, _ in options] for options in decisions]
    costs = [[cost for _, cost in options] for options in decisions]
    limit = sum(map(min, costs)) + slack

    def total(table, choice):
        return sum(row[option] for row, option in zip(table, choice, strict=True))

    feasible = [c for c in itertools.product(*map(range, map(len, decisions))) if total(costs, c) <= limit]
    best = best_choices(scores, costs, limit)
    assert best in feasible
    assert total(scores, best) == max(total(scores, choice) for choice in feasible)


def test_without_a_limit_each_decision_takes_its_best_and_cheapest():
    assert best_choices([[1.0, 2.0, 2.0], [3.0, 0.0]], [[0, 9, 5], [7, 0]], None) == (2, 0)


def test_a_tight_limit_takes_the_pair_that_greedy_choice_misses():
    """Greedy takes the 10 of decision 0 for cost 3 and has nothing left; two options of 6 for cost 2 are worth more."""
    assert best_choices([[0.0, 6.0, 10.0], [0.0, 6.0]], [[0, 2, 3], [0, 2]], 4) == (1, 1)


def test_an_impossible_limit_is_an_error():
    with pytest.raises(ValueError, match="costs 2 or less"):
        best_choices([[1.0], [1.0]], [[2], [1]], 2)
