"""Random search: every architecture trained on its own."""

import pytest

from nas_core.checkpoint import Checkpoint
from nas_core.search_spaces.nasbench201 import NasBench201
from nas_core.strategies import strategies


@pytest.fixture(scope="module")
def space() -> NasBench201:
    return NasBench201(2, 1, input_shape=(3, 8, 8), num_classes=4)


def search(**values):
    return strategies.build(strategies.spec("random").model_validate({"epochs": 2, "architectures": 3, **values}))


def test_the_best_rated_of_distinct_architectures_within_the_budget_is_kept(make_task, space):
    cheapest, dearest = space.macs_range()
    budget = (cheapest + dearest) // 2
    outcome = search().search(make_task(space, budget), Checkpoint())
    assert len({c["architecture"] for c in outcome.candidates}) == 3
    assert all(c["macs"] <= budget for c in outcome.candidates)
    assert str(outcome.architecture) == max(outcome.candidates, key=lambda c: c["score"])["architecture"]
    assert [record["epoch"] for record in outcome.training] == list(range(6))
    assert outcome.front[-1]["architecture"] == str(outcome.architecture)


def test_training_raises_the_score(make_task):
    """The same network, rated after one epoch and after twelve."""
    only = NasBench201(4, 1, ("nor_conv_3x3",), input_shape=(3, 8, 8), num_classes=4)
    short, long = (
        search(architectures=1, epochs=epochs, learning_rate=0.05).search(make_task(only, images=64), Checkpoint())
        for epochs in (1, 12)
    )
    assert long.candidates[0]["score"] > short.candidates[0]["score"]


@pytest.mark.parametrize("stop_after", [1, 3, 4])
def test_an_interrupted_search_ends_with_the_same_bytes(check_resume, make_task, space, stop_after):
    """Saves one and two are epochs of the first architecture, three its rating, four an epoch of the second."""
    check_resume(search(), make_task(space), stop_after)
