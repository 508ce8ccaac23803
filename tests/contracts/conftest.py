"""A tiny teacher and a task for any search space."""

import pytest
import torch
from torch import nn

from nas_core.ops.initialisation import initialise
from nas_core.search_spaces import SearchSpace
from nas_core.seeding import generator
from nas_core.strategies import Budget, SearchTask, macs_budget
from nas_core.teachers.teacher import Teacher
from nas_core.training.batches import SyntheticBatches


@pytest.fixture(scope="session")
def make_task(device):
    """A task of one training step per epoch on images of the space's size."""

    def make(space: SearchSpace, max_macs: int | None = None, budget: Budget | None = None) -> SearchTask:
        channels, height, width = space.input_shape
        module = nn.Sequential(
            nn.Conv2d(channels, 8, 3, stride=2, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(8, space.num_classes),
        )
        initialise(module, generator(0, "toy.teacher"))
        names = tuple(map(str, range(space.num_classes)))
        teacher = Teacher(module, space.input_shape, (0.5,) * channels, (0.25,) * channels, names).to(device)
        pixels = torch.randint(256, (8, channels, height, width), generator=generator(0, "toy.canvases"))
        canvases = pixels.to(torch.uint8)
        return SearchTask(
            space=space,
            train=SyntheticBatches(canvases[:4], teacher, 4),
            validation=SyntheticBatches(canvases[4:], teacher, 4),
            budget=budget or macs_budget(max_macs),
            temperature=2.0,
            seed=5,
            device=device,
        )

    return make
