"""Stand-ins that several tests share.

A teacher whose classes are easy to see, canvases whose windows tell where they are from, favourites that only a budget
stops, a killed process, a malicious file.
"""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from nas_core.strategies.alpha import ArchitectureWeights
from nas_core.teachers.networks import ResNet
from nas_core.teachers.teacher import Teacher


class Interruption(Exception):  # noqa: N818 - not an error
    """The end of a process in the middle of its work."""


class Bomb:
    """Pickles as a call that leaves a file behind when it is unpickled.

    Args:
        target: The file.
    """

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return Path.touch, (self.target,)


class Halves(nn.Module):
    """Tells images that are brighter above from images that are brighter below."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(1)
        self.scale = nn.Parameter(torch.tensor(4.0))

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(x)
        middle = x.shape[2] // 2
        above, below = x[:, 0, :middle].mean((1, 2)), x[:, 0, middle:].mean((1, 2))
        return self.scale * torch.stack([above - below, below - above], dim=1)


class Particular(ResNet):
    """The network of the digits teacher as people write theirs: a tensor that does not move, and a look at values."""

    def __init__(self) -> None:
        super().__init__(blocks=1, widths=(24, 48, 96), in_channels=1, num_classes=10)
        self.scale = torch.ones(())

    def forward(self, x: Tensor) -> Tensor:
        if x.max() > 100:
            raise ValueError("these are no normalised images")
        return super().forward(x * self.scale)


def halves(side: int) -> Teacher:
    """A teacher of two classes, for images of one channel and a side in pixels."""
    return Teacher(Halves(), (1, side, side), (0.5,), (0.25,), ("above", "below"))


def coded_canvases(count: int) -> Tensor:
    """Canvases of 10 x 10 whose pixel in row r and column c is 10 r + c, so that a window tells where it is from."""
    return torch.arange(100, dtype=torch.uint8).reshape(1, 1, 10, 10).repeat(count, 1, 1, 1)


def place_of(window: Tensor) -> tuple[int, int, bool]:
    """Row and column of a window (1, height, width) of a coded canvas, and whether it is mirrored.

    Raises:
        AssertionError: If it is anything else than what the canvas has there.
    """
    mirrored = bool(window[0, 0, 0] > window[0, 0, -1])
    upright = window.flip(2) if mirrored else window
    top, left = divmod(int(upright[0, 0, 0]), 10)
    rows, columns = (slice(first, first + side) for first, side in zip((top, left), window.shape[1:], strict=True))
    assert torch.equal(upright, coded_canvases(1)[0, :, rows, columns])
    return top, left, mirrored


def favour_the_dearest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let architecture weights start with the dearest operation of every slot far ahead of the others."""
    start = ArchitectureWeights.__init__

    def favouring(alpha, space, *given, **named) -> None:
        start(alpha, space, *given, **named)
        for logits, costs in zip(alpha.logits, space.macs_table.operations, strict=True):
            logits.data[costs.index(max(costs))] += 5

    monkeypatch.setattr(ArchitectureWeights, "__init__", favouring)
