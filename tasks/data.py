"""The committed synthetic images as batches for search, retraining and evaluation."""

import functools
import math

import torch
from jaxtyping import UInt8
from torch import Tensor

from nas_core.memory import canvas_memory, near
from nas_core.training.augmentation import Augmentation
from nas_core.training.batches import SyntheticBatches
from nas_core.training.canvases import Canvases
from nas_core.training.splits import Split, split_images
from storage.dataset import SyntheticImages
from storage.loading import ChosenCanvases, local_order
from tasks.run import Run

SHUFFLED_BYTES = 2**31
"""Canvases that are shuffled as a whole; of more, some shards at a time are. Not what a machine has: that must not
decide what is computed."""
SHOWN_CLASSES = 10
IMAGES_PER_CELL = 4


def open_images(run: Run) -> SyntheticImages:
    """All synthetic images of a run; their canvases are read as they are needed, within the memory for them."""
    return SyntheticImages(run.layout.dataset, canvas_memory(run.config.execution), arrays=("canvases",))


def load_images(run: Run) -> tuple[SyntheticImages, Split]:
    """All synthetic images of a run, and which of them are for what."""
    return open_images(run), split_images(run.config.split, run.config.seed)


def batches(
    run: Run, images: SyntheticImages, indices: Tensor, batch_size: int, augmentation: Augmentation | None = None
) -> SyntheticBatches:
    """Some of the images, labelled on the fly by the run's teacher.

    Where they lie depends on the memory for canvases, and on the device's. The order does not: it depends on the size
    of the dataset alone.
    """
    layout, teacher = images.store.layout, run.teacher()
    together = max(1, SHUFFLED_BYTES // (layout.batch_size * math.prod(layout.canvas)))
    if together < layout.rounds * layout.shards:
        indices = indices.sort().values  # so that passes in stored order read every shard once, too
    order = functools.partial(local_order, indices // layout.batch_size, together)
    canvases: Canvases = ChosenCanvases(images, indices)
    # Twice: once in the cache, once as what is copied from it.
    if 2 * len(images) * math.prod(layout.canvas) <= canvas_memory(run.config.execution):
        canvases = canvases[torch.arange(len(indices))]
        # What is scaled is scaled on the CPU.
        if augmentation is None or augmentation.crop_scale is None:
            canvases = near(canvases, teacher.device)
    return SyntheticBatches(canvases, teacher, batch_size, augmentation, order)


def shown_classes(images: SyntheticImages) -> list[int]:
    """Indices of the first classes that have images, as many as a picture can hold."""
    return sorted(images.targets.argmax(1).unique().tolist())[:SHOWN_CLASSES]


def first_images(
    images: SyntheticImages, classes: list[int]
) -> UInt8[Tensor, "rounds shown images channels height width"]:
    """The first images of each of some classes by round; black where there are fewer."""
    rounds = int(images.rounds.max()) + 1
    labels = images.targets.argmax(1)
    grid = torch.zeros(rounds, len(classes), IMAGES_PER_CELL, *images.store.layout.canvas, dtype=torch.uint8)
    for round_ in range(rounds):
        for column, label in enumerate(classes):
            found = ((images.rounds == round_) & (labels == label)).nonzero()[:IMAGES_PER_CELL, 0]
            if len(found):
                grid[round_, column, : len(found)] = images[found]["canvas"]
    return grid
