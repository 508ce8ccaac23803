"""Batches of synthetic images, cropped at random and labelled by the teacher on the fly."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from nas_core.teachers.teacher import Teacher
from nas_core.training.augmentation import Augmentation, color_jitter, cutout, mixup, scaled_crop
from nas_core.training.canvases import Canvases, read

Order = Callable[[torch.Generator], Int64[Tensor, " images"]]


@dataclass(frozen=True)
class Batch:
    """Normalised images with the teacher's logits of exactly these pixels."""

    images: Float[Tensor, "batch channels height width"]
    teacher_logits: Float[Tensor, "batch classes"]


class SyntheticBatches:
    """A set of canvases served as teacher-labelled batches.

    Args:
        canvases: The synthetic images, at least as large as the teacher's input: a tensor on any device, or a reader.
        teacher: Labels every window; its device is where batches are made.
        batch_size: Images per batch, >= 2; a last, smaller batch is left out of shuffled epochs.
        augmentation: How images vary beyond windows and flips, in shuffled epochs and where draws are given; teacher
            and student see the same.
        order: Draws the order of a shuffled epoch; None: any order is as likely as any other.

    Attributes:
        images: How many there are.
    """

    def __init__(
        self,
        canvases: Canvases,
        teacher: Teacher,
        batch_size: int,
        augmentation: Augmentation | None = None,
        order: Order | None = None,
    ) -> None:
        self.canvases = canvases
        self.images = canvases.shape[0]
        self.teacher = teacher
        self.batch_size = min(batch_size, self.images)
        self.augmentation = augmentation or Augmentation()
        self._order = order or (lambda generator: torch.randperm(self.images, generator=generator))

    def __len__(self) -> int:
        """Batches in one shuffled epoch."""
        return self.images // self.batch_size

    def epoch(self, generator: torch.Generator) -> Iterator[Batch]:
        """One pass in random order: per image its own random window and, where the class allows, a fair flip."""
        order = self._order(generator)[: len(self) * self.batch_size]
        cut = self._windows if self.augmentation.crop_scale is None else self._scaled_crops
        for canvases in read(self.canvases, order.split(self.batch_size)):
            yield self._labelled(cut(canvases, generator), generator)

    def fixed(self, generator: torch.Generator | None = None) -> Iterator[Batch]:
        """One pass in stored order over central windows, the last batch included; augmented if draws are given.

        The windows stay: crops of other sizes are for shuffled epochs alone.
        """
        return (self._labelled(windows, generator) for windows in self._central_windows())

    def fixed_repeatedly(self, draws: Callable[[], torch.Generator]) -> Iterable[Batch]:
        """`fixed` for many equal passes: kept if the canvases are in memory; else only the teacher's logits are.

        Args:
            draws: Makes a pass's generator, always with the same seed.
        """
        return list(self.fixed(draws())) if isinstance(self.canvases, Tensor) else _FixedAnew(self, draws)

    def fresh(self, generator: torch.Generator) -> Iterator[Batch]:
        """One pass in stored order over one new random window of every image, the last batch included."""
        for canvases in read(self.canvases, self._stored_order()):
            yield self._labelled(self._windows(canvases, generator))

    def fresh_predictions(self, generator: torch.Generator) -> Float[Tensor, "images classes"]:
        """The teacher's soft predictions on one new random window of every image, in stored order."""
        return torch.cat([batch.teacher_logits for batch in self.fresh(generator)]).softmax(dim=1)

    def _stored_order(self) -> Iterable[Int64[Tensor, " _"]]:
        return torch.arange(self.images).split(self.batch_size)

    def _central_windows(self) -> Iterator[UInt8[Tensor, "_ channels height width"]]:
        _, height, width = self.teacher.input_shape
        top, left = (self.canvases.shape[2] - height) // 2, (self.canvases.shape[3] - width) // 2
        for canvases in read(self.canvases, self._stored_order()):
            yield canvases[:, :, top : top + height, left : left + width]

    def _windows(
        self, canvases: UInt8[Tensor, "batch channels canvas_height canvas_width"], generator: torch.Generator
    ) -> UInt8[Tensor, "batch channels height width"]:
        """The images, each cut at its own offset and flipped by its own coin; on their device, drawn on the CPU."""
        _, height, width = self.teacher.input_shape
        count, depth, canvas_height, canvas_width = canvases.shape
        tops = torch.randint(canvas_height - height + 1, (count, 1, 1, 1), generator=generator)
        lefts = torch.randint(canvas_width - width + 1, (count, 1, 1, 1), generator=generator)
        flips = torch.randint(2, (count, 1, 1, 1), generator=generator).bool() & self.teacher.flip_invariant
        columns = torch.arange(width).reshape(1, 1, 1, width)
        columns = torch.where(flips, width - 1 - columns, columns) + lefts
        rows = torch.arange(height).reshape(1, 1, height, 1) + tops
        device = canvases.device
        images = torch.arange(count, device=device).reshape(-1, 1, 1, 1)
        channels = torch.arange(depth, device=device).reshape(1, -1, 1, 1)
        return canvases[images, channels, rows.to(device), columns.to(device)]

    def _scaled_crops(
        self, canvases: UInt8[Tensor, "batch channels canvas_height canvas_width"], generator: torch.Generator
    ) -> UInt8[Tensor, "batch channels height width"]:
        """The images: of each a part of its own size, scaled to the input's, flipped by its own coin.

        On the CPU, because devices round what they scale in ways of their own.
        """
        _, height, width = self.teacher.input_shape
        smallest = self.augmentation.crop_scale or 1.0
        crops = [scaled_crop(canvas, (height, width), smallest, generator) for canvas in canvases.cpu()]
        flips = torch.randint(2, (len(crops),), generator=generator).bool() & self.teacher.flip_invariant
        return torch.stack([crop.flip(2) if flip else crop for crop, flip in zip(crops, flips, strict=True)])

    def _labelled(
        self, images: UInt8[Tensor, "batch channels height width"], generator: torch.Generator | None = None
    ) -> Batch:
        """Normalised and labelled; with a generator, images first go through the augmentation."""
        normalised = self._normalised(images, generator)
        return Batch(normalised, self.teacher.logits(normalised))

    def _normalised(
        self, images: UInt8[Tensor, "batch channels height width"], generator: torch.Generator | None
    ) -> Float[Tensor, "batch channels height width"]:
        # First, so that what is rounded to bytes again does not depend on where the canvases are kept.
        images = images.to(self.teacher.device)
        if generator is not None and self.augmentation.color_jitter:
            images = color_jitter(images, self.augmentation.color_jitter, generator)
        normalised = self.teacher.normalise(images)
        if generator is not None and self.augmentation.mixup:
            normalised = mixup(normalised, self.augmentation.mixup, generator)
        if generator is not None and self.augmentation.cutout:
            normalised = cutout(normalised, 1.0, self.augmentation.cutout, generator)
        return normalised


class _FixedAnew:
    """`SyntheticBatches.fixed`, read anew in every pass; the teacher is asked in the first one only."""

    def __init__(self, batches: SyntheticBatches, draws: Callable[[], torch.Generator]) -> None:
        self._batches, self._draws = batches, draws
        self._logits: list[Float[Tensor, "batch classes"]] = []

    def __iter__(self) -> Iterator[Batch]:
        generator = self._draws()
        for position, windows in enumerate(self._batches._central_windows()):
            images = self._batches._normalised(windows, generator)
            if position == len(self._logits):
                self._logits.append(self._batches.teacher.logits(images))
            yield Batch(images, self._logits[position])
