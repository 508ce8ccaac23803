"""Fine-tuning on labelled real images, for those who have some. What comes out is not data-free.

No module of search, synthesis or retraining may import this one, and it changes nothing of their result: the fine-tuned
network is kept beside the student.
"""

import functools
import math
from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from nas_core.checkpoint import Checkpoint, Progress, no_progress
from nas_core.errors import InputError
from nas_core.evaluation.data import LabelledImages, fit
from nas_core.memory import total_memory
from nas_core.reporting.wording import byte_size
from nas_core.training.batches import Batch
from nas_core.training.loop import Trainee, train
from nas_core.training.recipe import FinetuneRecipe


class LabelledBatches:
    """Real images in random order, each flipped by a fair coin where its class allows.

    Args:
        images: The images; all of them are decoded once and kept.
        batch_size: Images per batch; a last, smaller batch is left out.
    """

    def __init__(self, images: LabelledImages, batch_size: int) -> None:
        self.teacher, self.labels = images.teacher, images.labels
        shape = images.teacher.input_shape
        self.pixels = torch.empty((len(images), *shape), dtype=torch.uint8)
        for i in range(len(images)):
            self.pixels[i] = fit(images.load(i), shape, images.resize)
        self.batch_size = min(batch_size, len(images))

    def __len__(self) -> int:
        """Batches in an epoch."""
        return len(self.labels) // self.batch_size

    def epoch(self, generator: torch.Generator) -> Iterator[Batch]:
        """One pass; a batch has the labels' one-hot rows in the place of the teacher's logits."""
        order = torch.randperm(len(self.labels), generator=generator)
        for indices in order[: len(self) * self.batch_size].split(self.batch_size):
            flips = torch.randint(2, (len(indices), 1, 1, 1), generator=generator).bool() & self.teacher.flip_invariant
            chosen = self.pixels[indices]
            chosen = torch.where(flips, chosen.flip(3), chosen).to(self.teacher.device)
            targets = functional.one_hot(self.labels[indices], self.teacher.num_classes).float()
            yield Batch(self.teacher.normalise(chosen), targets.to(self.teacher.device))


def check_finetuning(images: LabelledImages) -> None:
    """Refuse images that fine-tuning cannot learn from, before anything expensive starts.

    Raises:
        InputError: If there is a single one, or more than memory holds.
    """
    if len(images) < 2:
        raise InputError(f"{images.source} holds one image, and a batch needs two; give more")
    needed, there = len(images) * math.prod(images.teacher.input_shape), total_memory(torch.device("cpu"))
    if needed > there:
        raise InputError(
            f"the {len(images):,} images of {images.source} take {byte_size(needed)} of memory, and this machine has "
            f"{byte_size(there)}; give fewer"
        )


def smoothed_cross_entropy(
    logits: Float[Tensor, "batch classes"], targets: Float[Tensor, "batch classes"], smoothing: float
) -> Float[Tensor, ""]:
    """Cross-entropy in nats with targets (1 - smoothing) target + smoothing / classes, the batch's mean.

    Source:
        Szegedy et al., arXiv:1512.00567, section 7.
    """
    return functional.cross_entropy(logits, targets, label_smoothing=smoothing)


def finetune(
    network: nn.Module,
    images: LabelledImages,
    recipe: FinetuneRecipe,
    seed: int,
    checkpoint: Checkpoint,
    progress: Progress = no_progress,
) -> list[dict[str, Any]]:
    """Train a trained network further, or continue from `checkpoint.state`.

    Args:
        network: Trained in place, on the device of the images' teacher; left in eval mode.
        images: What it learns from.
        recipe: How.
        seed: The run's seed; decides order and flips.
        checkpoint: Where an interrupted run left off, and where to save after every epoch.
        progress: Called after every step.

    Returns:
        One record per epoch: {"epoch", "loss", "learning_rate", "accuracy" on the images of training}.
    """
    records = train(
        Trainee(network),
        LabelledBatches(images, recipe.batch_size),
        recipe,
        functools.partial(smoothed_cross_entropy, smoothing=recipe.label_smoothing),
        seed=seed,
        stage="finetune",
        checkpoint=checkpoint,
        progress=progress,
    )
    network.eval()
    return [{"accuracy" if key == "agreement" else key: value for key, value in r.items()} for r in records]
