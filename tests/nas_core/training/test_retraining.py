"""Retraining of a network with parts that act in training alone."""

import copy

import pytest
import torch

from nas_core.checkpoint import Checkpoint
from nas_core.ops.initialisation import initialise
from nas_core.ops.stochastic import DropPath
from nas_core.search_spaces.darts import DartsNetwork, DartsSpace
from nas_core.seeding import generator
from nas_core.training.recipe import Recipe
from nas_core.training.retraining import Student, retrain


def make_network(drop_path: float = 0.2, auxiliary_weight: float = 0.0, side: int = 8) -> DartsNetwork:
    space = DartsSpace(
        network_channels=2,
        network_cells=3,
        drop_path=drop_path,
        auxiliary_weight=auxiliary_weight,
        input_shape=(3, side, side),
        num_classes=4,
    )
    return space.network(space.architecture(space.sample(generator(0, "toy"))))


def test_dropped_paths_ramp_up_linearly():
    network = make_network()
    student = Student(network, epochs=10)
    student.start_epoch(5)
    rates = [part.rate for part in network.modules() if isinstance(part, DropPath)]
    assert rates == [pytest.approx(0.1)] * 3


def test_the_second_classifier_adds_its_weighted_loss(make_batches):
    network = make_network(auxiliary_weight=0.4, side=32)
    initialise(network, generator(0, "weights"))
    batch = next(make_batches(4, 4).fixed())
    images = torch.rand(4, 3, 32, 32, generator=generator(0, "images"))
    batch = type(batch)(images, batch.teacher_logits)
    loss, logits = Student(network, epochs=1).loss(batch, lambda student, _: student[:, 0].mean())
    expected, auxiliary = network.with_auxiliary(images)
    torch.testing.assert_close(logits, expected)
    torch.testing.assert_close(loss, expected[:, 0].mean() + 0.4 * auxiliary[:, 0].mean())


def test_an_interrupted_retraining_drops_the_same_paths(make_batches):
    recipe, batches = Recipe(epochs=3, warmup_epochs=0), make_batches(16, 8)
    states = []
    whole = make_network(drop_path=0.5)
    retrain(whole, batches, recipe, 2.0, 0, Checkpoint(None, lambda state: states.append(copy.deepcopy(state))))
    resumed = make_network(drop_path=0.5)
    retrain(resumed, batches, recipe, 2.0, 0, Checkpoint(states[0], lambda _: None))
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name
