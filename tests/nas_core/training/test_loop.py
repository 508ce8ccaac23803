"""The training loop: it learns, resumes to the same bytes, and decays and clips what it should."""

import copy
import functools

import pytest
import torch
from doubles import Interruption
from torch import nn

from nas_core.checkpoint import Checkpoint
from nas_core.errors import InputError
from nas_core.ops.initialisation import initialise
from nas_core.seeding import generator
from nas_core.training.distillation import distillation_loss
from nas_core.training.loop import Trainee, train
from nas_core.training.recipe import Recipe
from nas_core.training.retraining import retrain
from nas_core.training.styles import RetrainConfig

OBJECTIVE = functools.partial(distillation_loss, temperature=2.0)


def student(seed: int = 1) -> nn.Module:
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 4),
    )
    initialise(network, generator(seed, "toy.student"))
    return network


class NoisyTrainee(Trainee):
    """Has state of its own, which the result depends on."""

    def __init__(self, network):
        super().__init__(network)
        self.scale = torch.ones(())

    def start_epoch(self, epoch):
        self.draws = generator(0, "noise", epoch)

    def forward(self, images):
        self.scale = self.scale + torch.rand((), generator=self.draws)
        return self.network(images) * self.scale

    def end_epoch(self, record, /):
        record["scale"] = float(self.scale)

    def state(self):
        return {"scale": self.scale}

    def load(self, state, /):
        self.scale = state["scale"]


def run(batches, recipe, checkpoint=None, progress=lambda *_: None):
    network = student()
    trainee = NoisyTrainee(network)
    records = train(
        trainee,
        batches,
        recipe,
        OBJECTIVE,
        seed=3,
        stage="toy",
        checkpoint=checkpoint or Checkpoint(),
        progress=progress,
    )
    return network.state_dict(), records


def same_bytes(first: dict, second: dict) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("stop_at", [(0, "save"), (1, "save"), (2, "progress"), (0, "progress")])
def test_an_interrupted_run_ends_with_the_same_bytes(make_batches, stop_at):
    epoch, where = stop_at
    batches = make_batches(40, 8)
    recipe = Recipe(epochs=4, warmup_epochs=1, learning_rate=0.1)
    expected, expected_records = run(batches, recipe)
    saved = []

    def save(state):
        saved.append(copy.deepcopy(state))
        if where == "save" and len(saved) == epoch + 1:
            raise Interruption

    def progress(done, _total, _figures):
        if where == "progress" and done == epoch * len(batches) + 2:
            raise Interruption

    with pytest.raises(Interruption):
        run(batches, recipe, Checkpoint(None, save), progress)
    state = saved[-1] if saved else None
    for _ in range(2):  # Resuming leaves the saved state as it was.
        rest = []
        weights, records = run(batches, recipe, Checkpoint(state, rest.append))
        assert same_bytes(weights, expected)
        assert records == expected_records
        assert len(rest) == recipe.epochs - len(saved), "an epoch that was saved is trained again"


def test_a_finished_run_is_not_trained_further(make_batches):
    batches, recipe = make_batches(16, 8), Recipe(epochs=1, warmup_epochs=0)
    saved = []
    weights, records = run(batches, recipe, Checkpoint(None, lambda state: saved.append(copy.deepcopy(state))))
    again, again_records = run(batches, recipe, Checkpoint(saved[-1]), lambda *_: pytest.fail("a step was taken"))
    assert same_bytes(weights, again)
    assert records == again_records


def test_retraining_approaches_the_teacher(make_batches):
    batches = make_batches(96, 16)
    network = student()
    config = RetrainConfig(epochs=12, warmup_epochs=1, learning_rate=0.1, weight_decay=0.0, temperature=2.0)
    records = retrain(network, batches, config, 0, Checkpoint())
    assert records[-1]["loss"] < 0.5 * records[0]["loss"]
    assert records[-1]["agreement"] > records[0]["agreement"]
    assert not network.training


def test_retraining_starts_from_weights_of_the_seed(make_batches):
    batches, config = make_batches(16, 8), RetrainConfig(epochs=1, warmup_epochs=0)
    networks = [student(1), student(2)]
    for network in networks:
        retrain(network, batches, config, 0, Checkpoint())
    assert same_bytes(networks[0].state_dict(), networks[1].state_dict())


@pytest.mark.parametrize(("nesterov", "ahead"), [(True, 0.9), (False, 0.0)])
def test_first_step_is_minus_rate_times_gradient_and_nesterov_looks_ahead(make_batches, nesterov, ahead):
    """Nesterov's first step is -(1 + 0.9) rate x gradient, that of plain momentum -rate x gradient."""
    batches = make_batches(8, 8)
    network, twin = student(), student().train()
    batch = next(batches.epoch(generator(3, "toy.batches", 0)))
    OBJECTIVE(twin(batch.images), batch.teacher_logits).backward()
    values = {"learning_rate": 0.01, "weight_decay": 0.0, "gradient_clip": 1e9, "precision": "float32"}
    recipe = Recipe(epochs=1, warmup_epochs=0, nesterov=nesterov, **values)
    train(Trainee(network), batches, recipe, OBJECTIVE, seed=3, stage="toy", checkpoint=Checkpoint())
    for moved, start in zip(network.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(moved, start - 0.01 * (1 + ahead) * start.grad)


def test_gradient_is_clipped(make_batches):
    """One step moves all weights together by at most 1.9 x rate x clip."""
    network, start = student(), student()
    recipe = Recipe(epochs=1, warmup_epochs=0, learning_rate=0.1, weight_decay=0.0, gradient_clip=1e-3)
    train(Trainee(network), make_batches(8, 8), recipe, OBJECTIVE, seed=3, stage="toy", checkpoint=Checkpoint())
    pairs = zip(network.parameters(), start.parameters(), strict=True)
    moved = torch.cat([(a - b).flatten() for a, b in pairs]).norm()
    torch.testing.assert_close(moved, torch.tensor(1.9 * 0.1 * 1e-3), rtol=1e-2, atol=0)


class HalfUsed(nn.Module):
    """A network with a part that never runs."""

    def __init__(self):
        super().__init__()
        self.used, self.idle = student(), nn.Linear(3, 3)

    def forward(self, x):
        return self.used(x)


def test_weights_that_do_not_run_do_not_move(make_batches):
    network = HalfUsed()
    before = copy.deepcopy(network.idle.state_dict())
    recipe = Recipe(epochs=2, warmup_epochs=0, weight_decay=0.1)
    train(Trainee(network), make_batches(16, 8), recipe, OBJECTIVE, seed=3, stage="toy", checkpoint=Checkpoint())
    assert same_bytes(before, network.idle.state_dict())


def test_records_and_progress(make_batches):
    batches = make_batches(24, 8)
    shown = []
    recipe = Recipe(epochs=2, warmup_epochs=1, learning_rate=0.1)
    _, records = run(batches, recipe, progress=lambda done, total, figures: shown.append((done, total, set(figures))))
    assert shown == [(step, 6, {"loss", "agreement"}) for step in range(1, 7)]
    assert [record["epoch"] for record in records] == [0, 1]
    assert records[0]["learning_rate"] == pytest.approx(0.1)
    assert all(0 <= record["agreement"] <= 1 for record in records)
    assert records[1]["scale"] > records[0]["scale"]


def test_divergence_is_reported(make_batches):
    class Diverging(Trainee):
        def forward(self, images):
            return self.network(images) * torch.inf

    with pytest.raises(InputError, match="toy: the loss became nan in epoch 0"):
        train(
            Diverging(student()),
            make_batches(8, 8),
            Recipe(epochs=1, warmup_epochs=0),
            OBJECTIVE,
            seed=3,
            stage="toy",
            checkpoint=Checkpoint(),
        )


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_network_and_teacher_compute_in_either_precision_and_weights_stay_float32(make_batches, precision):
    seen, labels = [], []
    batches = make_batches(32, 8)

    class Watching(Trainee):
        def forward(self, images):
            logits = self.network(images)
            seen.append(logits.dtype)
            return logits

    network = student()
    recipe = Recipe(epochs=3, warmup_epochs=0, precision=precision)
    hook = batches.teacher.module.register_forward_hook(lambda *call: labels.append(call[2].dtype))
    try:
        records = train(Watching(network), batches, recipe, OBJECTIVE, seed=3, stage="toy", checkpoint=Checkpoint())
    finally:
        hook.remove()
    assert set(seen) == set(labels) == {getattr(torch, precision)}
    assert {weight.dtype for weight in network.parameters()} == {torch.float32}
    assert records[-1]["loss"] < records[0]["loss"]
