"""ProxylessNAS: its two gradients against theory, and searches on a tiny space."""

import pytest
import torch
from pydantic import ValidationError

from nas_core.checkpoint import Checkpoint
from nas_core.ops.cost import CostTable
from nas_core.search_spaces.nasbench201 import NasBench201
from nas_core.seeding import generator
from nas_core.settings.strategies import ProxylessSpec
from nas_core.strategies import Budget, strategies
from nas_core.strategies.proxyless import BinaryGates, pair_gradient, pair_update, reinforce_gradient
from nas_core.training.loop import Step


def proxyless(name: str = "proxyless", **values):
    return strategies.build(strategies.spec(name).model_validate({"epochs": 2, "alpha_every": 1, **values}))


@pytest.fixture(scope="module")
def space() -> NasBench201:
    full = NasBench201(2, 1, input_shape=(3, 8, 8), num_classes=4)
    return full.restrict({0: ["skip_connect", "nor_conv_1x1"], 5: ["nor_conv_3x3"]})


def test_pair_gradient_is_the_softmax_chain_rule():
    logits = torch.tensor([0.3, -0.8], requires_grad=True)
    slopes = torch.tensor([2.0, -1.0])
    (logits.softmax(0) * slopes).sum().backward()
    torch.testing.assert_close(pair_gradient(slopes, logits.detach().softmax(0)), logits.grad)


def test_two_path_update_leaves_the_other_chances_as_they_are():
    before = torch.tensor([0.1, -0.4, 0.7, 0.0, 1.2])
    after = before + torch.tensor([5.0, 0.6, 5.0, -0.9, 5.0])
    updated = pair_update(before, after, (1, 3))
    old, new = before.softmax(0), updated.softmax(0)
    torch.testing.assert_close(new[[0, 2, 4]], old[[0, 2, 4]])
    assert not torch.allclose(new[[1, 3]], old[[1, 3]], atol=1e-3)
    # Between the two, the odds are those of the step.
    torch.testing.assert_close(new[1] / new[3], (after[1] - after[3]).exp())


def test_a_two_path_step_moves_two_logits_per_open_slot_and_no_weight(make_task, space):
    task = make_task(space)
    made = BinaryGates(task.supernet(), task, ProxylessSpec(alpha_start=0, alpha_learning_rate=0.1))
    made.network.train()
    made.start_epoch(0)
    before = [logits.detach().clone() for logits in made.alpha.logits]
    batch = next(task.train.fixed())
    made.before_step(Step(batch, torch.optim.SGD(made.network.parameters(), lr=0.1)))
    moved = [int((old != new).sum()) for old, new in zip(before, made.alpha.logits, strict=True)]
    assert moved == [2, 2, 2, 2, 2, 0]
    assert all(parameter.grad is None for parameter in made.network.parameters())


def test_two_path_runs_two_operations_per_slot(make_task, space):
    """`none` is left out here, because it is not computed in a mixture."""
    operations = {index: [name for name in slot.operations if name != "none"] for index, slot in enumerate(space.slots)}
    task = make_task(space.restrict(operations))
    made = BinaryGates(task.supernet(), task, ProxylessSpec(alpha_start=0))
    made.network.train()
    made.start_epoch(0)
    ran = []
    for edge in made.network.body[0].edges:
        for operation in edge.operations:
            operation.register_forward_hook(lambda *_: ran.append(1))
    made.before_step(Step(next(task.train.fixed()), torch.optim.SGD(made.network.parameters(), lr=0.1)))
    assert len(ran) == 5 * 2 + 1


def test_reinforce_gradient_is_unbiased_on_two_arms():
    """Rewards 1 and 3 have d E[R] / d a_0 = p q (1 - 3).

    The mean of 2,000 estimates of 10 draws each is within four standard errors of it, whatever the baseline.
    """
    logits = torch.tensor([0.4, -0.2])
    chances = logits.softmax(0)
    exact = -float(chances[0] * chances[1] * (1 - 3))
    draws = torch.Generator().manual_seed(0)
    for baseline in (0.0, 2.0):
        arms = torch.multinomial(chances.expand(2000, -1), 10, replacement=True, generator=draws).tolist()
        estimates = torch.stack(
            [reinforce_gradient([logits], [(a,) for a in row], [1.0 + 2 * a for a in row], baseline)[0] for row in arms]
        )
        error = float(estimates[:, 0].std()) / 2000**0.5
        assert abs(float(estimates[:, 0].mean()) - exact) < 4 * error


def test_a_baseline_near_the_mean_reward_lowers_the_variance():
    """One draw each: with b = 2 both arms give the same size, with b = 0 they do not."""
    logits = torch.zeros(2)

    def spread(baseline: float) -> float:
        values = [float(reinforce_gradient([logits], [(a,)], [1.0 + 2 * a], baseline)[0][0]) for a in (0, 1)]
        return abs(values[0] - values[1])

    assert spread(2.0) == 0
    assert spread(0.0) == 2


def test_the_first_rewards_set_the_baseline_and_later_ones_are_nearly_the_next(make_task, space, monkeypatch):
    """B <- b + 0.99 (mean - b), as in the published code, used before it is moved."""
    task = make_task(space)
    made = BinaryGates(
        task.supernet(), task, ProxylessSpec(alpha_start=0, update="reinforce", alpha_every=1, samples=2)
    )
    made.network.train()
    made.start_epoch(0)
    rewards = iter([1.0, 3.0, 4.0, 8.0])
    monkeypatch.setattr(made, "_reward", lambda *_: next(rewards))
    step = Step(next(task.train.fixed()), torch.optim.SGD(made.network.parameters(), lr=0.1))
    before = [logits.detach().clone() for logits in made.alpha.logits]
    made.before_step(step)
    assert made.state()["baseline"] == 2
    assert all(torch.equal(old, new) for old, new in zip(before, made.alpha.logits, strict=True))
    made.before_step(step)
    assert made.state()["baseline"] == pytest.approx(0.01 * 2 + 0.99 * 6)


def test_a_reward_is_the_agreement_times_a_power_of_the_reference_over_the_cost(make_task, space):
    """A path at a quarter of the limit earns twice as much by a power of a half; where costs do not count, once."""
    cost = CostTable(0, tuple((1,) * len(slot.operations) for slot in space.slots))
    budget = Budget("toy", "max_toy", "units", lambda _: cost, limit=4 * len(space.slots))
    task = make_task(space, budget=budget)
    batch, path = next(task.validation.fixed()), space.sample(generator(0, "path"))

    def reward(exponent: float) -> float:
        made = BinaryGates(task.supernet(), task, ProxylessSpec(update="reinforce", reward_exponent=exponent))
        made.network.train()
        made.start_epoch(0)
        return made._reward(batch, path)

    network = task.supernet().train()
    agreement = (network(batch.images, path).argmax(1) == batch.teacher_logits.argmax(1)).float().mean()
    assert agreement > 0
    assert reward(0.0) == pytest.approx(float(agreement))
    assert reward(0.5) == pytest.approx(2 * float(agreement))


@pytest.mark.parametrize("form", ["mul-log", "add-linear"])
def test_a_heavy_cost_in_the_loss_drives_towards_cheap_operations(make_task, space, form):
    task = make_task(space)
    heavy = proxyless(
        epochs=8, alpha_start=0, alpha_learning_rate=0.1, cost_loss=form, cost_factor=100, cost_power=100
    ).search(task, Checkpoint())
    free = proxyless(epochs=8, alpha_start=0, alpha_learning_rate=0.1, cost_loss="none").search(task, Checkpoint())
    assert heavy.search[-1]["expected_macs"] < 0.9 * heavy.search[0]["expected_macs"]
    assert heavy.search[-1]["expected_macs"] < free.search[-1]["expected_macs"]


@pytest.mark.parametrize("name", ["proxyless", "proxyless-rl"])
def test_the_curve_tells_what_was_derived(make_task, space, name):
    outcome = proxyless(name).search(make_task(space), Checkpoint())
    assert [record["epoch"] for record in outcome.search] == [0, 1]
    assert outcome.search[-1]["architecture"] == str(outcome.architecture)


@pytest.mark.parametrize(("form", "published"), [("mul-log", 0.2), ("add-linear", 0.1)])
def test_the_weight_of_the_cost_is_the_published_one_of_its_form(make_task, space, form, published):
    def slopes(**values) -> list[list[float]]:
        task = make_task(space)
        made = BinaryGates(task.supernet(), task, ProxylessSpec.model_validate({"cost_loss": form, **values}))
        pairs = {slot: (0, 1) for slot, each in enumerate(space.slots) if len(each.operations) > 1}
        chances = {slot: torch.tensor([0.5, 0.5], requires_grad=True) for slot in pairs}
        made._with_cost(torch.tensor(2.0), pairs, chances).backward()
        return [chance.grad.tolist() for chance in chances.values()]

    assert slopes() == slopes(cost_factor=published)
    assert slopes() != slopes(cost_factor=0.15)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"name": "proxyless-rl", "cost_loss": "none"}, r"cost_loss = none .* update = reinforce; .* reward_exponent"),
        ({"name": "proxyless", "update": "reinforce", "cost_factor": 0.3}, "cost_factor = 0.3"),
        ({"name": "proxyless", "reward_exponent": 0.0}, "reward_exponent = 0.0 is a setting of update = reinforce"),
        ({"name": "proxyless", "samples": 4}, "samples = 4"),
    ],
)
def test_what_an_update_would_ignore_is_refused(values, told):
    with pytest.raises(ValidationError, match=told):
        strategies.spec(values["name"]).model_validate(values)
