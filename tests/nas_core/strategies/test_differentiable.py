"""Differentiable search on a tiny space, with the parts of first-order DARTS."""

import itertools
import math

import pytest
import torch
from pydantic import ValidationError

from nas_core.checkpoint import Checkpoint
from nas_core.errors import InputError
from nas_core.search_spaces.nasbench201 import NasBench201
from nas_core.seeding import generator
from nas_core.settings.differentiable import DifferentiableSpec
from nas_core.strategies import macs_budget, strategies
from nas_core.strategies.alpha import ArchitectureWeights
from nas_core.strategies.mixture import Mixture
from nas_core.training.loop import Step

CPU = torch.device("cpu")


def darts(**values):
    return strategies.build(strategies.spec("darts").model_validate({"epochs": 3, **values}))


@pytest.fixture(scope="module")
def space() -> NasBench201:
    full = NasBench201(2, 1, input_shape=(3, 8, 8), num_classes=4)
    # Slots of different sizes, one without any choice left.
    return full.restrict({0: ["skip_connect", "nor_conv_1x1"], 5: ["nor_conv_3x3"]})


def weights_of(space, values: dict[int, list[float]]) -> ArchitectureWeights:
    alpha = ArchitectureWeights(space, generator(0, "toy"), CPU)
    with torch.no_grad():
        for slot, logits in values.items():
            alpha.logits[slot].copy_(torch.tensor(logits))
    return alpha


@pytest.fixture
def mixture(make_task, space):
    task = make_task(space)
    made = Mixture(task.supernet(), task, space, DifferentiableSpec(alpha_learning_rate=0.1, alpha_weight_decay=0))
    made.start_epoch(0)
    made.network.train()
    return made, made.alpha, task


def step_of(made, batch) -> Step:
    return Step(batch, torch.optim.SGD(made.network.parameters(), lr=0.1))


def test_gates_start_almost_uniform_and_sum_to_one(space):
    for gate, slot in zip(ArchitectureWeights(space, generator(0, "toy"), CPU).gates(), space.slots, strict=True):
        torch.testing.assert_close(gate.sum(), torch.tensor(1.0))
        torch.testing.assert_close(gate, torch.full_like(gate, 1 / len(slot.operations)), rtol=0, atol=2e-3)


def test_without_a_budget_each_slot_takes_its_argmax_none_included(space):
    alpha = weights_of(
        space, {0: [0, 1], 1: [9, 0, 0, 0, 0], 2: [0, 0, 0, 0, 9], 3: [0, 9, 0, 0, 0], 4: [0, 0, 0, 9, 0]}
    )
    expected = ("nor_conv_1x1", "none", "avg_pool_3x3", "skip_connect", "nor_conv_3x3", "nor_conv_3x3")
    assert alpha.derive(macs_budget()).operations == expected


@pytest.mark.parametrize("share", [0.0, 0.3, 0.6])
def test_under_a_budget_the_product_of_gates_is_largest(space, share):
    alpha = ArchitectureWeights(space, generator(1, "toy"), CPU)
    with torch.no_grad():
        for logits in alpha.logits:
            logits.mul_(1000)
    cheapest, dearest = space.macs_range()
    budget = round(cheapest + share * (dearest - cheapest))
    logs = [gate.log().tolist() for gate in alpha.gates()]

    def score(choices):
        return math.fsum(row[choice] for row, choice in zip(logs, choices, strict=True))

    every = itertools.product(*(range(len(slot.operations)) for slot in space.slots))
    best = max(score(choices) for choices in every if space.macs(choices) <= budget)
    found = space.choices(alpha.derive(macs_budget(budget)))
    assert space.macs(found) <= budget
    assert score(found) == pytest.approx(best, rel=1e-5)


def test_alpha_step_moves_alpha_and_no_weight(mixture):
    made, alpha, task = mixture
    before = [logit.detach().clone() for logit in alpha.logits]
    batch = next(task.train.fixed())
    made.before_step(step_of(made, batch))
    moved = [not torch.equal(old, new) for old, new in zip(before, alpha.logits, strict=True)]
    assert moved == [True] * 5 + [False]  # A slot with one operation has nothing to learn.
    assert all(parameter.grad is None for parameter in made.network.parameters())


def test_weight_step_has_no_gradient_for_alpha(mixture):
    made, alpha, task = mixture
    batch = next(task.train.fixed())
    task.objective(made.forward(batch.images), batch.teacher_logits).backward()
    assert all(logit.grad is None for logit in alpha.logits)
    assert all(parameter.grad is not None for parameter in made.network.parameters())


def test_alpha_steps_lower_the_validation_loss(mixture):
    made, _, task = mixture

    def loss() -> float:
        with torch.no_grad():
            return sum(float(task.objective(made.forward(b.images), b.teacher_logits)) for b in task.validation.fixed())

    before = loss()
    for _ in range(15):
        made.before_step(step_of(made, next(task.train.fixed())))
    assert loss() < before


def test_curve_tells_what_was_derived(make_task, space):
    outcome = darts().search(make_task(space), Checkpoint())
    assert [record["epoch"] for record in outcome.search] == [0, 1, 2]
    last = outcome.search[-1]
    assert last["architecture"] == str(outcome.architecture)
    assert last["skip_connect"] == outcome.architecture.operations.count("skip_connect")
    assert [len(gate) for gate in last["gates"]] == [len(slot.operations) for slot in space.slots]
    assert [set(record) for record in outcome.training] == [{"epoch", "loss", "learning_rate", "agreement"}] * 3
    assert outcome.candidates == []


def test_the_result_keeps_the_budget(make_task, space):
    cheapest, _ = space.macs_range()
    outcome = darts(epochs=1).search(make_task(space, cheapest), Checkpoint())
    assert space.macs(space.choices(outcome.architecture)) == cheapest
    assert outcome.search[-1]["macs"] == cheapest


def test_an_impossible_budget_is_refused_at_once(make_task, space):
    cheapest, _ = space.macs_range()
    with pytest.raises(InputError, match=f"raise it to {cheapest} or more"):
        darts().search(make_task(space, 1), Checkpoint(), lambda *_: pytest.fail("something was computed"))


def test_an_interrupted_search_ends_with_the_same_bytes(check_resume, make_task, space):
    check_resume(darts(), make_task(space), saves=3)


@pytest.mark.parametrize("values", [{"alpha_betas": (0.5, 1.0)}, {"alpha_learning_rate": 0}, {"learning_rate": 1e-4}])
def test_impossible_settings_are_refused(values):
    """The last one peaks below the rate that the cosine is to end at."""
    with pytest.raises(ValidationError):
        strategies.spec("darts").model_validate(values)
