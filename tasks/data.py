"""The committed synthetic images as batches for search, retraining and evaluation."""

import torch
from jaxtyping import UInt8
from torch import Tensor

from nas_core.training.augmentation import Augmentation
from nas_core.training.batches import SyntheticBatches
from nas_core.training.splits import Split, split_images
from storage.dataset import SyntheticImages
from tasks.run import Run

SHOWN_CLASSES = 10
IMAGES_PER_CELL = 4


def load_images(run: Run) -> tuple[SyntheticImages, Split]:
    """All synthetic images of a run, and which of them are for what."""
    images = SyntheticImages(run.layout.dataset)
    config = run.config
    split = split_images(len(images), config.evaluation.held_out, config.search.validation_fraction, config.seed)
    return images, split


def batches(
    run: Run, images: SyntheticImages, indices: Tensor, batch_size: int, augmentation: Augmentation | None = None
) -> SyntheticBatches:
    """Some of the images, labelled on the fly by the run's teacher."""
    return SyntheticBatches(images.canvases[indices], run.teacher(), batch_size, augmentation)


def shown_classes(images: SyntheticImages) -> list[int]:
    """Indices of the first classes that have images, as many as a picture can hold."""
    return sorted(images.targets.argmax(1).unique().tolist())[:SHOWN_CLASSES]


def first_images(
    images: SyntheticImages, classes: list[int]
) -> UInt8[Tensor, "rounds shown images channels height width"]:
    """The first images of each of some classes by round; black where there are fewer."""
    rounds = int(images.rounds.max()) + 1
    labels = images.targets.argmax(1)
    grid = torch.zeros(rounds, len(classes), IMAGES_PER_CELL, *images.canvases.shape[1:], dtype=torch.uint8)
    for round_ in range(rounds):
        for column, label in enumerate(classes):
            found = images.canvases[(images.rounds == round_) & (labels == label)][:IMAGES_PER_CELL]
            grid[round_, column, : len(found)] = found
    return grid
