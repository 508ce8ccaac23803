"""P-DARTS: what survives a stage, the skip cap, and the fading of dropout."""

import math

import pytest
import torch

from nas_core.checkpoint import Checkpoint
from nas_core.search_spaces.nasbench1shot1 import NasBench1Shot1
from nas_core.search_spaces.nasbench201 import OPERATIONS, NasBench201
from nas_core.settings.differentiable import Progression, Stage
from nas_core.strategies import macs_budget, strategies
from nas_core.strategies.alpha import ArchitectureWeights
from nas_core.strategies.progressive import derive, survivors

# Order: none, skip_connect, nor_conv_1x1, nor_conv_3x3, avg_pool_3x3.
RANKED = [5.0, 4.0, 3.0, 2.0, 1.0]


@pytest.fixture(scope="module")
def space() -> NasBench201:
    return NasBench201(2, 1, input_shape=(3, 8, 8), num_classes=4)


def weights(space, rows) -> ArchitectureWeights:
    alpha = ArchitectureWeights(space, torch.Generator().manual_seed(0), torch.device("cpu"))
    with torch.no_grad():
        for logits, row in zip(alpha.logits, rows, strict=True):
            logits.copy_(torch.tensor(row))
    return alpha


def test_the_weakest_operations_are_dropped_per_slot(space):
    rows = [RANKED, RANKED[::-1], [1.0, 5.0, 2.0, 4.0, 3.0], RANKED, RANKED, RANKED]
    kept = survivors(Progression(), weights(space, rows), space, 3, macs_budget())
    narrow = space.restrict(kept)
    assert narrow.slots[0].operations == ("none", "skip_connect", "nor_conv_1x1")
    assert narrow.slots[1].operations == ("nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
    assert narrow.slots[2].operations == ("skip_connect", "nor_conv_3x3", "avg_pool_3x3")


def test_a_stage_that_keeps_more_than_there_is_keeps_all(space):
    kept = survivors(Progression(), weights(space, [RANKED] * 6), space, 8, macs_budget())
    assert all(set(kept[slot]) == set(OPERATIONS) for slot in range(6))


def test_the_operation_of_an_architecture_within_the_budget_survives(space):
    """By rank both convolutions survive alone, and the cheapest network of these would be too dear."""
    rows = [[0.0, 0.0, 4.0, 5.0, 0.0]] * 6
    cheapest, _ = space.macs_range()
    kept = survivors(Progression(), weights(space, rows), space, 2, macs_budget(cheapest))
    assert space.restrict(kept).macs_range()[0] <= cheapest


@pytest.mark.parametrize("operations", [1, 2, 3])
def test_a_slot_that_takes_several_nodes_keeps_those_that_are_chosen(operations):
    """Blocks 3 and 4 and the output choose two nodes each; here the cheapest ones, not those that rank first."""
    space = NasBench1Shot1("s1", 2, 2, 1, input_shape=(3, 8, 8), num_classes=4)
    rows = [[float(len(slot.operations) - option) for option in range(len(slot.operations))] for slot in space.slots]
    budget, alpha = macs_budget(space.macs_range()[0]), weights(space, rows)
    chosen = derive(Progression(), alpha, space, budget)
    narrow = space.restrict(survivors(Progression(), alpha, space, operations, budget))
    assert narrow.choices(chosen)
    for slot, taken in zip(narrow.slots, chosen.operations, strict=True):
        assert len(slot.operations) == max(operations, len(taken) if isinstance(taken, tuple) else 1)


def test_stages_narrow_a_space_whose_slots_take_several_nodes(make_task):
    space = NasBench1Shot1("s1", 2, 2, 1, input_shape=(3, 8, 8), num_classes=4)
    spec = strategies.spec("differentiable").model_validate(
        {"epochs": 1, "progression": {"stages": [{}, {"operations": 1}]}}
    )
    outcome = strategies.build(spec).search(make_task(space), Checkpoint())
    assert outcome.search[0]["architecture"] == outcome.search[1]["architecture"] == str(outcome.architecture)


def test_in_the_end_none_is_removed(space):
    alpha = weights(space, [RANKED] * 6)
    # Which has it wherever the input still reaches the output: by the direct edge, the cheapest way in score.
    direct = ("none", "none", "none", "skip_connect", "none", "none")
    assert derive(Progression(), alpha, space, macs_budget()).operations == direct
    assert derive(Progression(none_allowed=False), alpha, space, macs_budget()).operations == ("skip_connect",) * 6


def test_the_cap_rules_out_the_least_likely_skips(space):
    """Skips win everywhere, least clearly in slots 1, 4, 0 and 3: those fall to the second best."""
    skip = [5.0, 3.0, 8.0, 6.0, 4.0, 9.0]
    rows = [[0.0, strength, 0.0, 2.0, 0.0] for strength in skip]
    architecture = derive(Progression(skip_cap=2), weights(space, rows), space, macs_budget())
    expected = ["nor_conv_3x3"] * 6
    expected[2] = expected[5] = "skip_connect"
    assert list(architecture.operations) == expected


def test_the_budget_comes_before_the_cap(space):
    """Where all but skips are too dear, skips stay."""
    narrow = space.restrict({slot: ["skip_connect", "nor_conv_3x3"] for slot in range(6)})
    rows = [[0.0, 1.0]] * 6
    cheapest, _ = narrow.macs_range()
    architecture = derive(Progression(skip_cap=2), weights(narrow, rows), narrow, macs_budget(cheapest))
    assert architecture.operations == ("skip_connect",) * 6


def test_skip_dropout_falls_linearly_then_decays():
    """P (25 - e - 1) / 25 for ten epochs, then p exp(-0.2 (e - 10))."""
    stage = Stage(skip_dropout=0.4)
    assert [stage.skip_dropout_at(epoch, 25, 10) for epoch in (0, 9, 10, 15)] == pytest.approx(
        [0.4 * 24 / 25, 0.4 * 15 / 25, 0.4, 0.4 * math.exp(-1)]
    )


def test_the_published_stages():
    """5, 11 and 17 cells; 8, 5 and 3 operations; dropout 0, .4 and .7; at most two skips."""
    spec = strategies.spec("p-darts")()
    stages = spec.progression.stages
    assert [5 + stage.extra_cells for stage in stages] == [5, 11, 17]
    assert [stage.operations for stage in stages] == [None, 5, 3]
    assert [stage.skip_dropout for stage in stages] == [0, 0.4, 0.7]
    assert (spec.epochs, spec.alpha_start_epoch, spec.progression.skip_cap) == (25, 10, 2)


def test_deeper_stages_have_more_cells_and_the_same_choices(space):
    deep = space.deepened(6)
    assert len(deep.supernet().body) == 3 * (1 + 2) + 2
    assert deep.slots == space.slots
    assert deep.macs_range()[1] > space.macs_range()[1]


def test_stages_narrow_the_space_and_the_result_is_one_of_the_whole(make_task, space):
    stages = [{}, {"extra_cells": 3, "operations": 3}, {"extra_cells": 3, "operations": 2}]
    strategy = strategies.build(
        strategies.spec("p-darts").model_validate({"epochs": 2, "progression": {"stages": stages}})
    )
    outcome = strategy.search(make_task(space), Checkpoint())
    positive = [sum(weight > 0 for weight in record["gates"][0]) for record in outcome.search]
    assert positive == [5, 5, 3, 3, 2, 2]
    assert [record["epoch"] for record in outcome.search] == list(range(6))
    assert "none" not in outcome.architecture.operations
    assert outcome.architecture.operations.count("skip_connect") <= 2
