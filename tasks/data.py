"""The committed synthetic images as batches for search, retraining and evaluation."""

from torch import Tensor

from nas_core.training.augmentation import Augmentation
from nas_core.training.batches import SyntheticBatches
from nas_core.training.splits import Split, split_images
from storage.dataset import SyntheticImages
from tasks.run import Run


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
