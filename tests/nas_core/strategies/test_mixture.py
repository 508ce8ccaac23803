"""How the parts of differentiable search act on a supernet and its architecture weights."""

import copy

import pytest
import torch
from pydantic import ValidationError

from nas_core.checkpoint import Checkpoint
from nas_core.errors import InputError
from nas_core.ops.mixed import MixedOperation
from nas_core.ops.stochastic import Dropout
from nas_core.search_spaces import spaces
from nas_core.search_spaces.nasbench201 import NasBench201
from nas_core.settings.differentiable import DifferentiableSpec
from nas_core.strategies import macs_budget, strategies
from nas_core.strategies.alpha import ArchitectureWeights
from nas_core.strategies.mixture import Mixture
from nas_core.training.loop import Step

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def space() -> NasBench201:
    return NasBench201(4, 1, ("skip_connect", "nor_conv_1x1", "avg_pool_3x3"), input_shape=(3, 8, 8), num_classes=4)


def draws(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def build(name: str = "differentiable", **values):
    return strategies.build(strategies.spec(name).model_validate({"epochs": 2, **values}))


def started(task, **values) -> Mixture:
    settings = DifferentiableSpec.model_validate(values)
    made = Mixture(task.supernet(partial=settings.partial.divisor), task, task.space, settings)
    made.network.train()
    made.start_epoch(0)
    return made


def step_of(made, task) -> Step:
    return Step(next(task.train.fixed()), torch.optim.SGD(made.network.parameters(), lr=0.1, momentum=0.9))


# Edge normalisation


def normalised(space) -> ArchitectureWeights:
    alpha = ArchitectureWeights(space, draws(), CPU, edge_normalisation=True)
    with torch.no_grad():
        for parameter in alpha.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=draws(1)))
    return alpha


def test_edge_weights_sum_to_one_per_node(space):
    """Edges 1<-0 | 2<-0 2<-1 | 3<-0 3<-1 3<-2."""
    beta = [float(weight.detach()) for weight in normalised(space).edge_weights()]
    assert [beta[0], sum(beta[1:3]), sum(beta[3:])] == pytest.approx([1, 1, 1])
    assert beta[1] != pytest.approx(beta[2])


def test_a_mixture_whose_edges_have_weights_is_run_with_them(space):
    """At the output of an edge of identities, whatever the weights of the operations."""
    alpha = normalised(space)
    x = torch.ones(1, 2, 1, 1)
    mixed = MixedOperation([torch.nn.Identity()] * 3, partial=2)
    for gate, beta in zip(alpha.gates(), alpha.edge_weights(), strict=True):
        torch.testing.assert_close(mixed(x, gate), beta * x)


def test_scores_are_log_alpha_plus_log_beta(space):
    alpha = normalised(space)
    for row, beta, mixture in zip(alpha.scores(), alpha.edge_weights(), alpha.mixture(), strict=True):
        torch.testing.assert_close(torch.tensor(row), (beta * mixture).detach().log())


@pytest.mark.parametrize(
    ("name", "part"), [("pc-darts", "edge normalisation"), ("r-darts-dp", "drop-path in the search")]
)
def test_edges_are_needed_for_edge_normalisation_and_drop_path(space, name, part):
    no_edges = copy.copy(space)
    no_edges.slots = tuple(copy.copy(slot) for slot in space.slots)
    for slot in no_edges.slots:
        object.__setattr__(slot, "group", None)
    with pytest.raises(InputError, match=f"{part} needs edges, but slot 1<-0 of search space 'nasbench201' is none"):
        build(name).check(no_edges, macs_budget())
    build(name).check(space, macs_budget())


def test_edge_weights_learn_with_alpha(make_task, space):
    task = make_task(space)
    made = started(
        task, partial={"divisor": 4, "edge_normalisation": True}, alpha_weight_decay=0, alpha_learning_rate=0.1
    )
    before = made.alpha.edge_logits.detach().clone()
    made.before_step(step_of(made, task))
    # The first node has one edge, whose weight is one whatever its logit.
    assert [bool(moved) for moved in (made.alpha.edge_logits.detach() - before).abs() > 1e-2] == [False] + [True] * 5


# One-hot relaxation


def test_one_hot_gates_carry_the_gradient_of_every_operation(space):
    alpha = ArchitectureWeights(space, draws(), CPU, relaxation="one-hot")
    [gate, *_] = alpha.mixture()
    assert sorted(gate.tolist()) == [0, 0, 1]
    (gate * torch.tensor([1.0, 2.0, 3.0])).sum().backward()
    assert alpha.logits[0].grad.tolist() == [1, 2, 3]


def test_one_hot_logits_stay_in_the_box(space):
    alpha = ArchitectureWeights(space, draws(), CPU, relaxation="one-hot")
    assert all(bool(((logits - 0.5).abs() < 0.01).all()) for logits in alpha.logits)
    with torch.no_grad():
        alpha.logits[0].copy_(torch.tensor([-1.0, 0.5, 3.0]))
    alpha.project()
    assert alpha.logits[0].tolist() == [0, 0.5, 1]


def test_one_hot_weight_steps_run_one_operation_per_slot(make_task, space):
    task = make_task(space)
    made = started(task, relaxation="one-hot", alpha_start=0.9)
    step = step_of(made, task)
    ran = []
    for edge in made.network.body[0].edges:
        for operation in edge.operations:
            operation.register_forward_hook(lambda *_: ran.append(1))
    made.before_step(step)
    made.forward(step.batch.images)
    assert len(ran) == 6


# Perturbation


def gates_of_a_step(made, task) -> list[list[torch.Tensor]]:
    """The gates of every pass in one step, alpha's first."""
    seen = []
    made.network.register_forward_pre_hook(lambda _module, inputs: seen.append([gate.detach() for gate in inputs[1]]))
    step = step_of(made, task)
    made.before_step(step)
    made.forward(step.batch.images)
    return seen


@pytest.mark.parametrize(("kind", "passes"), [("none", 2), ("random", 2), ("adversarial", 2 + 7 + 2)])
def test_alpha_learns_at_the_clean_mixture_and_weights_at_the_moved_one(make_task, space, kind, passes):
    task = make_task(space)
    made = started(task, perturbation={"kind": kind, "start": 0.2})
    clean = [weights.detach() for weights in made.alpha.mixture()]
    seen = gates_of_a_step(made, task)
    assert len(seen) == passes
    for gate, weights in zip(seen[0], clean, strict=True):
        assert torch.equal(gate, weights)
    now = [weights.detach() for weights in made.alpha.mixture()]
    moved = [not torch.equal(gate, weights) for gate, weights in zip(seen[-1], now, strict=True)]
    assert any(moved) == (kind != "none")


def test_the_adversary_leaves_no_trace_in_batch_norm(make_task, space):
    task = make_task(space)

    def statistics(kind: str) -> list[torch.Tensor]:
        made = started(task, perturbation={"kind": kind, "start": 0.0, "growth": 0.0})
        step = step_of(made, task)
        made.before_step(step)
        made.forward(step.batch.images)
        assert made.network.training
        return [buffer.clone() for buffer in made.network.buffers()]

    for one, other in zip(statistics("none"), statistics("adversarial"), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("values", [{}, {"order": "second"}, {"perturbation": {"kind": "adversarial"}}])
def test_a_slot_that_takes_no_part_has_nothing_to_learn(make_task, space, monkeypatch, values):
    task = make_task(space)
    made = started(task, alpha_weight_decay=0, **values)
    forward = made.network.forward
    monkeypatch.setattr(made.network, "forward", lambda x, gates: forward(x, [0, *gates[1:]]))
    before = [logits.detach().clone() for logits in made.alpha.logits]
    step = step_of(made, task)
    made.before_step(step)
    made.forward(step.batch.images)
    moved = [not torch.equal(old, new) for old, new in zip(before, made.alpha.logits, strict=True)]
    assert moved == [False] + [True] * 5


# Second order, cost, curvature


def test_second_order_leaves_weights_and_statistics_as_they_were(make_task, space):
    task = make_task(space)
    made = started(task, order="second")
    before = copy.deepcopy(made.network.state_dict())
    alpha = [logits.detach().clone() for logits in made.alpha.logits]
    made.before_step(step_of(made, task))
    for name, value in made.network.state_dict().items():
        assert torch.equal(value, before[name])
    assert not any(torch.equal(old, new) for old, new in zip(alpha, made.alpha.logits, strict=True))


def test_second_order_looks_through_the_step_that_is_taken(make_task, space, monkeypatch):
    """The training images of alpha's passes lose the squares that those of the weights' own step lose."""
    task = make_task(space)
    made = started(task, order="second", epochs=2, regularisation={"cutout": 1.0})
    made.start_epoch(1)
    seen = []
    forward = made.network.forward
    monkeypatch.setattr(made.network, "forward", lambda x, gates: (seen.append(x), forward(x, gates))[1])
    step = step_of(made, task)
    made.before_step(step)
    made.forward(step.batch.images)
    trained, validated, *differences, own = seen
    assert not torch.equal(own, step.batch.images)
    assert all(torch.equal(images, own) for images in (trained, *differences))
    assert len(differences) == 2
    assert not torch.equal(validated, own)


def test_all_passes_of_a_step_lose_the_same_values(make_task, monkeypatch):
    """Dropout of the head of ShuffleNet: finite differences of passes with other masks would be noise."""
    spec = spaces.spec("shufflenet").model_validate(
        {"stage_blocks": [1, 1], "stage_channels": [18, 20], "strides": [1, 2, 2], "dropout": 0.5}
    )
    task = make_task(spaces.build(spec, input_shape=(3, 8, 8), num_classes=4))
    made = started(task, order="second")
    masks = []
    forward = Dropout.forward

    def spy(layer, x):
        masks.append(forward(layer, torch.ones_like(x)))
        return x * masks[-1]

    monkeypatch.setattr(Dropout, "forward", spy)
    first, second = step_of(made, task), step_of(made, task)
    for step in (first, second):
        made.before_step(step)
        made.forward(step.batch.images)
    assert len(masks) == 10
    assert all(torch.equal(mask, masks[0]) for mask in masks[:5])
    assert all(torch.equal(mask, masks[5]) for mask in masks[5:])
    assert not torch.equal(masks[0], masks[5])


def test_second_order_is_refused_where_the_weights_step_elsewhere():
    with pytest.raises(ValidationError, match=r"perturbation.kind = random .* choose order = first"):
        DifferentiableSpec.model_validate({"order": "second", "perturbation": {"kind": "random"}})


def test_a_heavy_cost_drives_towards_free_operations(make_task, space):
    light, heavy = (
        build(cost_weight=weight, alpha_learning_rate=0.2, epochs=3).search(make_task(space), Checkpoint())
        for weight in (0.0, 1000.0)
    )
    assert heavy.search[-1]["macs"] == space.macs_range()[0]
    assert light.search[-1]["loss"] != heavy.search[-1]["loss"]


def test_looking_at_the_curvature_changes_nothing_else(make_task, space):
    plain, watched = (
        build(epochs=3, hessian_every=every).search(make_task(space), Checkpoint()) for every in (None, 2)
    )
    assert plain.training == watched.training
    assert plain.architecture == watched.architecture
    assert ["largest_eigenvalue" in record for record in watched.search] == [True, False, True]
    assert ["trace" in record for record in plain.search] == [False] * 3


@pytest.mark.parametrize("partial", [1, 4])
def test_curvature_exists_with_all_and_with_partial_channels(make_task, space, partial):
    outcome = build(epochs=1, hessian_every=1, partial={"divisor": partial}).search(make_task(space), Checkpoint())
    assert outcome.search[0]["largest_eigenvalue"] > 0


def test_the_stopping_rule_ends_the_search_and_returns_the_earlier_architecture(make_task, space, monkeypatch):
    """Eigenvalues that double: with one value per average and one look back, epoch 2 returns to epoch 1."""
    values = iter([1.0, 1.0, 2.0, 4.0, 8.0])
    monkeypatch.setattr(Mixture, "_curvature", lambda _: {"largest_eigenvalue": next(values), "trace": 0.0})
    stopping = {"rule": "hessian", "window": 1, "lookback": 1, "earliest": 0}
    outcome = build(epochs=5, alpha_learning_rate=0.5, hessian_every=1, stopping=stopping).search(
        make_task(space), Checkpoint()
    )
    assert [record["epoch"] for record in outcome.training] == [0, 1, 2]
    assert str(outcome.architecture) == outcome.search[1]["architecture"]


# Start, grid


def test_alpha_stays_while_the_weights_learn_alone(make_task, space):
    outcome = build(epochs=4, alpha_start=0.5).search(make_task(space), Checkpoint())
    gates = [record["gates"] for record in outcome.search]
    assert gates[0] == gates[1]
    assert gates[1] != gates[2]
    assert ["validation_loss" in record for record in outcome.search] == [False, False, True, True]


def test_of_a_grid_the_run_that_validates_best_is_kept(make_task, space):
    grid = [{"weight_decay": 1e-4}, {"weight_decay": 10.0}, {"regularisation": {"drop_path": 0.5, "cutout": 1.0}}]
    outcome = build(grid=grid, epochs=3).search(make_task(space), Checkpoint())
    scores = [candidate["score"] for candidate in outcome.candidates]
    assert len(set(scores)) == 3
    assert outcome.rated_loss == -max(scores)
    assert [candidate["setting"].keys() for candidate in outcome.candidates[:2]] == [{"weight_decay"}] * 2


def test_runs_that_differ_in_drops_alone_are_compared_without_them(make_task, space):
    """Steps too small to move anything: the mixtures are the same, and only alpha's own steps see the drops."""
    still = {"learning_rate": 1e-12, "final_learning_rate": 0.0, "alpha_learning_rate": 1e-12}
    grid = build(grid=[{}, {"regularisation": {"drop_path": 0.9}}], **still)
    plain, dropped = (point.search(make_task(space), Checkpoint()) for point in grid.points)
    assert plain.search[-1]["validation_loss"] != pytest.approx(dropped.search[-1]["validation_loss"], rel=1e-2)
    assert plain.rated_loss == pytest.approx(dropped.rated_loss, rel=1e-5)


def test_rating_the_mixture_changes_nothing_of_it(make_task, space):
    made = started(make_task(space))
    before = copy.deepcopy(made.network.state_dict())
    first = made._rated_loss()
    assert made.network.training
    assert all(torch.equal(value, before[name]) for name, value in made.network.state_dict().items())
    assert made._rated_loss() == first


def test_of_a_grid_that_stops_the_returned_epochs_are_compared(make_task, space, monkeypatch):
    """Both runs stop in epoch 2 and return to epoch 1, where the first one was better."""
    eigenvalues, losses = iter(2 * [1.0, 1.0, 2.0]), iter([5.0, 1.0, 4.0, 5.0, 2.0, 3.0])
    monkeypatch.setattr(Mixture, "_curvature", lambda _: {"largest_eigenvalue": next(eigenvalues), "trace": 0.0})
    monkeypatch.setattr(Mixture, "_rated_loss", lambda _: next(losses))
    stopping = {"rule": "hessian", "window": 1, "lookback": 1, "earliest": 0}
    grid = [{"weight_decay": 1e-4}, {"weight_decay": 1e-2}]
    outcome = build(epochs=5, hessian_every=1, stopping=stopping, grid=grid).search(make_task(space), Checkpoint())
    assert [candidate["score"] for candidate in outcome.candidates] == [-1.0, -2.0]
    assert outcome.rated_loss == 1.0


def test_an_interrupted_grid_of_stages_ends_with_the_same_bytes(check_resume, make_task, space):
    """Two runs of two stages of one epoch: saves after every epoch, and after every run."""
    strategy = build(
        epochs=1,
        grid=[{}, {"weight_decay": 1e-2}],
        progression={"stages": [{}, {"extra_cells": 1, "operations": 2, "skip_dropout": 0.3}]},
        perturbation={"kind": "random"},
    )
    check_resume(strategy, make_task(space), saves=6)
