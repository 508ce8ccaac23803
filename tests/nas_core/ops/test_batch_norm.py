"""Recalibration gives one path its own statistics."""

import torch
from torch import nn

from nas_core.ops.batch_norm import recalibrate
from nas_core.seeding import generator


def images(position: int) -> torch.Tensor:
    return torch.rand(4, 2, 3, 3, generator=generator(0, "images", position))


def test_statistics_are_the_plain_average_over_the_batches():
    """Batches {0, 2} and {4, 10}: means 1 and 7, unbiased variances 2 and 18; their averages are 4 and 10."""
    norm = nn.BatchNorm2d(1, momentum=0.1)
    norm(100 * images(0)[:, :1])
    batches = [torch.tensor([0.0, 2.0]).reshape(2, 1, 1, 1), torch.tensor([4.0, 10.0]).reshape(2, 1, 1, 1)]
    recalibrate(norm, norm, batches)
    torch.testing.assert_close(norm.running_mean, torch.tensor([4.0]))
    torch.testing.assert_close(norm.running_var, torch.tensor([10.0]))
    assert not norm.training
    assert norm.momentum == 0.1


def test_history_does_not_matter():
    batches = [images(position) for position in range(3)]
    fresh, used = nn.BatchNorm2d(2), nn.BatchNorm2d(2)
    used(images(3))
    for norm in (fresh, used):
        recalibrate(norm, norm, batches)
    assert torch.equal(fresh.running_var, used.running_var)


def test_nothing_learns():
    norm = nn.BatchNorm2d(2)
    recalibrate(norm, lambda x: norm(x).requires_grad_(False), [images(0)])
    assert norm.weight.grad is None
