"""A tiny teacher with seeded weights, and batches of random canvases that it labels."""

import pytest
import torch
from torch import nn

from nas_core.ops.initialisation import initialise
from nas_core.seeding import generator
from nas_core.teachers.teacher import Teacher
from nas_core.training.batches import SyntheticBatches


@pytest.fixture(scope="session")
def teacher() -> Teacher:
    module = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 4),
    )
    initialise(module, generator(0, "toy.teacher"))
    module[5].weight.data *= 10
    return Teacher(module, (3, 8, 8), (0.5,) * 3, (0.25,) * 3, ("a", "b", "c", "d"))


@pytest.fixture(scope="session")
def make_batches(teacher):
    def make(images: int, batch_size: int, seed: int = 0) -> SyntheticBatches:
        draws = generator(seed, "toy.canvases")
        # A colour per image on top of noise, so that the classes differ between images.
        colour = torch.randint(160, (images, 3, 1, 1), generator=draws)
        noise = torch.randint(96, (images, 3, 10, 10), generator=draws)
        return SyntheticBatches((colour + noise).to(torch.uint8), teacher, batch_size)

    return make
