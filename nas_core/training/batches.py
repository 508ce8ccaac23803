"""Batches of synthetic images, cropped at random and labelled by the teacher on the fly."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from nas_core.teachers.teacher import Teacher
from nas_core.training.augmentation import Augmentation, cutout, scaled_crop


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
        augmentation: How the images of shuffled epochs vary beyond windows and flips; teacher and student see the same.
    """

    def __init__(
        self,
        canvases: UInt8[Tensor, "images channels height width"],
        teacher: Teacher,
        batch_size: int,
        augmentation: Augmentation | None = None,
    ) -> None:
        self.canvases = canvases
        self.teacher = teacher
        self.batch_size = min(batch_size, len(canvases))
        self.augmentation = augmentation or Augmentation()

    def __len__(self) -> int:
        """Batches in one shuffled epoch."""
        return len(self.canvases) // self.batch_size

    def epoch(self, generator: torch.Generator) -> Iterator[Batch]:
        """One pass in random order: per image its own random window and, where the class allows, a fair flip."""
        order = torch.randperm(len(self.canvases), generator=generator)
        cut = self._windows if self.augmentation.crop_scale is None else self._scaled_crops
        for start in range(0, len(self) * self.batch_size, self.batch_size):
            yield self._labelled(cut(order[start : start + self.batch_size], generator), generator)

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

    def _scaled_crops(
        self, indices: Tensor, generator: torch.Generator
    ) -> UInt8[Tensor, "batch channels height width"]:
        """The images at `indices`: of each a part of its own size, scaled to the input's, flipped by its own coin."""
        _, height, width = self.teacher.input_shape
        smallest = self.augmentation.crop_scale or 1.0
        crops = [scaled_crop(self.canvases[i], (height, width), smallest, generator) for i in indices.tolist()]
        flips = torch.randint(2, (len(indices),), generator=generator).bool() & self.teacher.flip_invariant
        return torch.stack([crop.flip(2) if flip else crop for crop, flip in zip(crops, flips, strict=True)])

    def _labelled(
        self, images: UInt8[Tensor, "batch channels height width"], generator: torch.Generator | None = None
    ) -> Batch:
        """Normalised and labelled; with a generator, each image first loses the square of the augmentation."""
        normalised = self.teacher.normalise(images.to(self.teacher.device))
        if generator is not None and self.augmentation.cutout:
            normalised = cutout(normalised, 1.0, self.augmentation.cutout, generator)
        return Batch(normalised, self.teacher.logits(normalised))
