"""The learning rate schedule and the groups that decay."""

import pytest
from pydantic import ValidationError
from torch import nn

from nas_core.training.loop import parameter_groups
from nas_core.training.recipe import Recipe


def test_rate_rises_linearly_then_follows_the_cosine():
    """Two of ten epochs of four steps warm up; half way through the cosine the rate is half the peak."""
    recipe = Recipe(epochs=10, warmup_epochs=2, learning_rate=0.8)
    rates = [recipe.learning_rate_at(step, 4) for step in range(40)]
    assert rates[:8] == pytest.approx([0.1 * step for step in range(1, 9)])
    assert rates[8] == pytest.approx(0.8)
    assert rates[24] == pytest.approx(0.4)
    assert 0 < rates[39] < 0.002
    assert rates[8:] == sorted(rates[8:], reverse=True)


def test_cosine_ends_at_the_final_rate():
    recipe = Recipe(epochs=1, warmup_epochs=0, learning_rate=1.0, final_learning_rate=0.5)
    assert recipe.learning_rate_at(0, 1000) == pytest.approx(1.0)
    assert recipe.learning_rate_at(999, 1000) == pytest.approx(0.5, abs=1e-5)


def test_only_matrices_and_kernels_decay():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2))
    decaying, free = parameter_groups(network, weight_decay=0.1)
    assert (decaying["weight_decay"], free["weight_decay"]) == (0.1, 0.0)
    assert [p.ndim for p in decaying["params"]] == [4, 2]
    assert [p.ndim for p in free["params"]] == [1, 1, 1, 1]


@pytest.mark.parametrize(
    "values", [{"epochs": 2, "warmup_epochs": 2}, {"learning_rate": 0.1, "final_learning_rate": 0.2}, {"epochs": 0}]
)
def test_settings_that_contradict_each_other_are_refused(values):
    with pytest.raises(ValidationError):
        Recipe(**values)
