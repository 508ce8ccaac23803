"""Targets: balanced classes, and soft predictions with a temperature."""

import math

import torch
from hypothesis import given
from hypothesis import strategies as st

from nas_core.synthesis.labels import one_hot, shard_classes, soft_predictions


@given(batch=st.integers(1, 40), classes=st.integers(2, 30), shards=st.integers(1, 8), seed=st.integers(0, 100))
def test_classes_are_balanced_over_the_run_and_distinct_where_possible(
    batch: int, classes: int, shards: int, seed: int
):
    pieces = [shard_classes(seed, shard, batch, classes) for shard in range(shards)]
    assert all(len(piece) == batch for piece in pieces)
    counts = torch.cat(pieces).bincount(minlength=classes)
    assert counts.max() - counts.min() <= 1
    for block in torch.cat(pieces).split(classes):
        assert len(block.unique()) == len(block)


def test_a_shard_knows_its_classes_without_the_others():
    assert torch.equal(shard_classes(0, 3, 7, 10), shard_classes(0, 3, 7, 10))
    assert not torch.equal(shard_classes(0, 3, 10, 10), shard_classes(1, 3, 10, 10))


def test_one_hot_puts_all_probability_on_the_class():
    assert one_hot(torch.tensor([2, 0]), 3).tolist() == [[0, 0, 1], [1, 0, 0]]


def test_temperature_gives_related_classes_more_mass():
    """Odds of e^2 become odds of e at temperature 2; the order of classes stays."""
    logits = torch.tensor([[2.0, 0.0]])
    cool, warm = soft_predictions(logits, 1.0), soft_predictions(logits, 2.0)
    assert math.isclose(cool[0, 0] / cool[0, 1], math.e**2, rel_tol=1e-5)
    assert math.isclose(warm[0, 0] / warm[0, 1], math.e, rel_tol=1e-5)
