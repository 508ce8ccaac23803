"""Batches of synthetic images, cropped at random and labelled by the teacher on the fly."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from nas_core.teachers.teacher import Teacher


@dataclass(frozen=True)
class Batch:
    """Normalised images with the teacher's logits of exactly these pixels."""

    images: Float[Tensor, "batch channels height width"]
    teacher_logits: Float[Tensor, "batch classes"]


class SyntheticBatches:
    """A set of canvases served as teacher-labelled batches.

    Args:
        canvases: The synthetic images, at least as large as the teacher's input.
        teacher: Labels every window; its device is where batches are made.
        batch_size: Images per batch, >= 2; a last, smaller batch is left out of shuffled epochs.
    """

    def __init__(
        self, canvases: UInt8[Tensor, "images channels height width"], teacher: Teacher, batch_size: int
    ) -> None:
        self.canvases = canvases
        self.teacher = teacher
        self.batch_size = min(batch_size, len(canvases))

    def __len__(self) -> int:
        """Batches in one shuffled epoch."""
        return len(self.canvases) // self.batch_size

    def epoch(self, generator: torch.Generator) -> Iterator[Batch]:
        """One pass in random order: per image its own random window and, where the class allows, a fair flip."""
        order = torch.randperm(len(self.canvases), generator=generator)
        for start in range(0, len(self) * self.batch_size, self.batch_size):
            yield self._labelled(self._windows(order[start : start + self.batch_size], generator))

    def fixed(self) -> Iterator[Batch]:
        """One pass in stored order over central windows, the last batch included."""
        _, height, width = self.teacher.input_shape
        top = (self.canvases.shape[2] - height) // 2
        left = (self.canvases.shape[3] - width) // 2
        for chunk in self.canvases.split(self.batch_size):
            yield self._labelled(chunk[:, :, top : top + height, left : left + width])

    def fresh(self, generator: torch.Generator) -> Iterator[Batch]:
        """One pass in stored order over one new random window of every image, the last batch included."""
        for piece in torch.arange(len(self.canvases)).split(self.batch_size):
            yield self._labelled(self._windows(piece, generator))

    def fresh_predictions(self, generator: torch.Generator) -> Float[Tensor, "images classes"]:
        """The teacher's soft predictions on one new random window of every image, in stored order."""
        return torch.cat([batch.teacher_logits for batch in self.fresh(generator)]).softmax(dim=1)

    def _windows(self, indices: Tensor, generator: torch.Generator) -> UInt8[Tensor, "batch channels height width"]:
        """The images at `indices`, each cut at its own offset and flipped by its own coin."""
        _, height, width = self.teacher.input_shape
        count = len(indices)
        tops = torch.randint(self.canvases.shape[2] - height + 1, (count, 1, 1, 1), generator=generator)
        lefts = torch.randint(self.canvases.shape[3] - width + 1, (count, 1, 1, 1), generator=generator)
        flips = torch.randint(2, (count, 1, 1, 1), generator=generator).bool() & self.teacher.flip_invariant
        columns = torch.arange(width).reshape(1, 1, 1, width)
        columns = torch.where(flips, width - 1 - columns, columns)
        channels = torch.arange(self.canvases.shape[1]).reshape(1, -1, 1, 1)
        rows = torch.arange(height).reshape(1, 1, height, 1)
        return self.canvases[indices.reshape(-1, 1, 1, 1), channels, rows + tops, columns + lefts]

    def _labelled(self, images: UInt8[Tensor, "batch channels height width"]) -> Batch:
        normalised = self.teacher.normalise(images.to(self.teacher.device))
        return Batch(normalised, self.teacher.logits(normalised))
