"""Successive halving, and random search, which is its first rung alone."""

import pytest
from pydantic import ValidationError

from nas_core.checkpoint import Checkpoint
from nas_core.ops.initialisation import initialise
from nas_core.search_spaces.nasbench201 import NasBench201
from nas_core.seeding import generator
from nas_core.strategies import strategies
from nas_core.strategies.rating import Rating


@pytest.fixture(scope="module")
def space() -> NasBench201:
    return NasBench201(2, 1, input_shape=(3, 8, 8), num_classes=4)


def search(name: str = "random", **values):
    small = {"name": name, "epochs": 2, "architectures": 3}
    return strategies.build(strategies.spec(name).model_validate({**small, **values}))


def test_the_best_rated_of_distinct_architectures_within_the_budget_is_kept(make_task, space):
    cheapest, dearest = space.macs_range()
    budget = cheapest + (dearest - cheapest) // 10
    outcome = search().search(make_task(space, budget), Checkpoint())
    assert len({c["architecture"] for c in outcome.candidates}) == 3
    assert all(c["macs"] <= budget for c in outcome.candidates)
    assert str(outcome.architecture) == max(outcome.candidates, key=lambda c: c["score"])["architecture"]
    assert [record["epoch"] for record in outcome.training] == list(range(6))
    assert outcome.front()[-1]["architecture"] == str(outcome.architecture)


def test_training_raises_the_score(make_task):
    """The same network, rated after one epoch and after twelve."""
    only = NasBench201(4, 1, ("nor_conv_3x3",), input_shape=(3, 8, 8), num_classes=4)
    short, long = (
        search(architectures=1, epochs=epochs, learning_rate=0.05).search(make_task(only, images=64), Checkpoint())
        for epochs in (1, 12)
    )
    assert long.candidates[0]["score"] > short.candidates[0]["score"]


def test_a_network_is_rated_under_statistics_of_its_own(make_task, space):
    """Four steps too small to move a weight: running averages would still hold most of their initial values."""
    task = make_task(space)
    outcome = search(architectures=1, epochs=1, learning_rate=1e-12).search(task, Checkpoint())
    untrained = space.network(outcome.architecture)
    initialise(untrained, generator(task.seed, "search.alone.weights", 0, 0))
    [rated] = outcome.candidates
    assert rated["score"] == pytest.approx(Rating(task, 20)(untrained), rel=1e-4)


def test_an_interrupted_search_ends_with_the_same_bytes(check_resume, make_task, space):
    """The draw, then of each of three architectures two epochs and its rating."""
    check_resume(search(), make_task(space), saves=10)


HALVING = {"epochs": 1, "architectures": 4, "rungs": 2, "eta": 2, "prior": {"pool": 8, "images": 8}}


def test_the_better_half_is_trained_twice_as_long(make_task, space):
    """Four architectures for one epoch, the best two for two more; only those two can win."""
    outcome = search("successive-halving", **HALVING).search(make_task(space), Checkpoint())
    assert len(outcome.training) == 4 * 1 + 2 * 2
    assert [record["rated"] for record in outcome.search] == [4, 2]
    assert outcome.search[-1]["architecture"] == str(outcome.architecture)
    finalists = [candidate for candidate in outcome.candidates if candidate["generation"] == 1]
    assert len(finalists) == 2
    assert len(outcome.candidates) == 4
    assert str(outcome.architecture) == max(finalists, key=lambda c: c["score"])["architecture"]


def test_the_first_rung_are_the_most_promising_of_the_pool(make_task, convolutions_or_skips):
    """By their cost, of all 64: six convolutions, and the six cells of five."""
    space, dearest = convolutions_or_skips
    prior = {"scores": ["macs"], "pool": 64, "images": 8}
    strategy = search("successive-halving", epochs=1, architectures=7, rungs=1, prior=prior)
    outcome = strategy.search(make_task(space, images=8), Checkpoint())
    assert len(outcome.candidates) == 7
    assert {candidate["architecture"] for candidate in outcome.candidates} == dearest


def test_an_interrupted_halving_ends_with_the_same_bytes(check_resume, make_task, space):
    """The draw, four architectures of an epoch and a rating, and two of two epochs and a rating."""
    check_resume(search("successive-halving", **HALVING), make_task(space), saves=15)


def test_rungs_that_nobody_reaches_are_refused():
    with pytest.raises(ValidationError, match="leave none for the last of rungs = 3"):
        search("successive-halving", architectures=8, rungs=3, eta=3)
