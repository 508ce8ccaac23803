"""Targets: balanced classes, and soft predictions with a temperature."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nas_core.errors import InputError
from nas_core.synthesis.labels import (
    chosen_classes,
    entropy,
    label_changes,
    one_hot,
    shard_classes,
    soft_predictions,
    top1_drift,
    top_overlap,
)


@given(batch=st.integers(1, 40), classes=st.integers(2, 30), shards=st.integers(1, 8), seed=st.integers(0, 100))
def test_classes_are_balanced_over_the_run(batch: int, classes: int, shards: int, seed: int):
    pieces = [shard_classes(seed, shard, batch, classes) for shard in range(shards)]
    assert all(len(piece) == batch for piece in pieces)
    counts = torch.cat(pieces).bincount(minlength=classes)
    assert counts.max() - counts.min() <= 1
    for block in torch.cat(pieces).split(classes):
        assert len(block.unique()) == len(block)


def test_a_shard_knows_its_classes_without_the_others():
    assert torch.equal(shard_classes(0, 3, 7, 10), shard_classes(0, 0, 28, 10)[21:])
    assert not torch.equal(shard_classes(0, 3, 10, 10), shard_classes(1, 3, 10, 10))


def test_one_hot_puts_all_probability_on_the_class():
    assert one_hot(torch.tensor([2, 0]), 3).tolist() == [[0, 0, 1], [1, 0, 0]]


def test_temperature_gives_related_classes_more_mass():
    """Odds of e^2 become odds of e at temperature 2; the order of classes stays."""
    logits = torch.tensor([[2.0, 0.0]])
    cool, warm = soft_predictions(logits, 1.0), soft_predictions(logits, 2.0)
    assert math.isclose(cool[0, 0] / cool[0, 1], math.e**2, rel_tol=1e-5)
    assert math.isclose(warm[0, 0] / warm[0, 1], math.e, rel_tol=1e-5)


NAMES = ("cat", "dog", "cow", "dog")


def test_classes_are_chosen_by_index_or_name_in_the_order_given():
    assert chosen_classes((2, "cat"), NAMES).tolist() == [2, 0]
    assert chosen_classes(None, NAMES).tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ((4,), "has 4, but the teacher's class indices are 0 to 3"),
        ((-1,), "has -1, but"),
        (("cot",), "has 'cot', which is no class of the teacher .its classes: cat, dog, cow, dog"),
        (("dog",), "the name of 2 classes: give an index"),
        ((0, "cat"), "has a class twice"),
    ],
)
def test_a_wrong_choice_of_classes_is_refused(classes: tuple[int | str, ...], message: str):
    with pytest.raises(InputError, match=message):
        chosen_classes(classes, NAMES)


def test_entropy_is_zero_for_certainty_and_log_n_for_none():
    values = entropy(torch.tensor([[1.0, 0, 0, 0], [0.25, 0.25, 0.25, 0.25], [0.5, 0.5, 0, 0]]))
    torch.testing.assert_close(values, torch.tensor([0.0, math.log(4), math.log(2)]))


def test_drift_counts_changed_winners():
    before = torch.tensor([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.2, 0.8]])
    after = torch.tensor([[0.6, 0.4], [0.4, 0.6], [0.1, 0.9], [0.3, 0.7]])
    assert top1_drift(before, after) == 0.25


def test_overlap_of_the_likeliest_classes():
    """Of the two likeliest of four: {0, 1} and {0, 2} share one; {2, 3} and {3, 2} both."""
    before = torch.tensor([[0.5, 0.3, 0.1, 0.1], [0.05, 0.05, 0.5, 0.4]])
    after = torch.tensor([[0.5, 0.1, 0.3, 0.1], [0.05, 0.05, 0.4, 0.5]])
    assert top_overlap(before, after, most=2) == 0.75


def test_one_hot_targets_rank_no_classes():
    certain, soft = one_hot(torch.tensor([0]), 4), torch.tensor([[0.4, 0.3, 0.2, 0.1]])
    assert top_overlap(certain, soft) is None
    assert top_overlap(torch.cat([certain, soft]), torch.cat([soft, soft])) == 1.0


def test_changes_of_a_round():
    changes = label_changes(one_hot(torch.tensor([0, 1]), 2), torch.tensor([[0.5, 0.5], [0.75, 0.25]]))
    assert changes["top1_drift"] == 0.5
    assert changes["label_confidence"] == 0.625
    assert changes["top5_overlap"] is None
    expected = (math.log(2) - 0.75 * math.log(0.75) - 0.25 * math.log(0.25)) / 2
    assert math.isclose(changes["label_entropy"], expected, rel_tol=1e-6)
