"""The rule of DARTS-ES on series whose answer is known."""

import pytest
from pydantic import ValidationError

from nas_core.settings.differentiable import Stopping
from nas_core.strategies import strategies

RULE = Stopping(rule="hessian")


def first_stop(eigenvalues: list[float], rule: Stopping = RULE) -> tuple[int, int] | None:
    """(epoch at which the rule fires, epoch that it returns to) when a value comes every second epoch."""
    epochs = [2 * index for index in range(len(eigenvalues))]
    for seen in range(1, len(epochs) + 1):
        stop = rule.stop_epoch(epochs[:seen], eigenvalues[:seen])
        if stop is not None:
            return epochs[seen - 1], stop
    return None


def test_flat_curvature_never_stops():
    assert first_stop([0.15] * 25) is None


def test_the_earliest_detection_is_at_epoch_22_and_returns_epoch_10():
    """The published constants: the average at 22 belongs to 18, the one before to 10, the first that may be."""
    assert first_stop([1.5**index for index in range(25)]) == (22, 10)


@pytest.mark.parametrize(("factor", "stop"), [(1.37, None), (1.38, (36, 24))])
def test_the_averages_must_grow_by_more_than_30_percent(factor, stop):
    """A step at epoch 30 by a factor.

    At 36 the window holds 1 and four of the new value, four evaluations earlier all ones, so that
    (1 + 4 factor) / 5 > 1.3 needs a factor above 1.375.
    """
    assert first_stop([1.0] * 15 + [factor] * 10) == stop


def test_a_jump_is_detected_when_the_average_says_so():
    """At epoch 32 the window holds 1 1 1 2 2 (1.4), four evaluations earlier all ones: 1.4 > 1.3 returns to 20."""
    assert first_stop([1.0] * 15 + [2.0] * 10) == (32, 20)


def test_one_outlier_is_averaged_away():
    """1 1 1 1 2 is 1.2 on average."""
    assert first_stop([1.0] * 15 + [2.0] + [1.0] * 9) is None


def test_the_mean_of_all_serves_until_the_window_is_full():
    """Averages of the first three values, and of the last five of seven, four evaluations later: 2 / 1 > 1.3."""
    rule = RULE.model_copy(update={"earliest": 0})
    series = [1.0, 1.0, 1.0, 2.0, 2.0, 2.0, 3.0]  # Mean of the last five: 2.
    assert rule.stop_epoch([0, 2, 4, 6, 8, 10, 12], series) == 0
    assert rule.stop_epoch([0, 2, 4, 6, 8, 10], series[:6]) is None


def test_curvature_below_zero_has_not_grown():
    assert first_stop([-0.1] * 10 + [0.5] * 4) is None


@pytest.mark.parametrize("rule", [RULE, Stopping(rule="hessian", window=1, lookback=1, earliest=0)])
@pytest.mark.parametrize("every", [1, 2, 3])
def test_the_fewest_epochs_are_those_in_which_a_fast_growth_is_seen(rule, every):
    """Against the rule itself: of a search of so many epochs, all but the last one may be looked at."""

    def stops(epochs: int) -> bool:
        looks = range(0, epochs - 1, every)
        return any(rule.stop_epoch(looks[:n], [2.0**i for i in range(n)]) is not None for n in range(1, len(looks) + 1))

    fewest = rule.fewest_epochs(every)
    assert stops(fewest)
    assert not stops(fewest - 1)


def test_a_search_that_the_rule_can_never_end_is_refused():
    """The published constants: from an epoch 22 on, and there must be one after it."""
    spec = strategies.spec("darts-es")
    assert spec.model_validate({"epochs": 24}).epochs == 24
    with pytest.raises(ValidationError, match=r"cannot end a search of epochs = 23.*needs 24 or more"):
        spec.model_validate({"epochs": 23})


def test_an_even_window_is_refused():
    with pytest.raises(ValidationError, match="must be odd"):
        Stopping(window=4)
