"""Training of a found architecture from scratch, by distillation."""

import functools
from typing import Any

from torch import nn

from nas_core.checkpoint import Checkpoint, Progress, no_progress
from nas_core.ops.initialisation import initialise
from nas_core.seeding import generator
from nas_core.training.batches import SyntheticBatches
from nas_core.training.distillation import distillation_loss
from nas_core.training.loop import Trainee, train
from nas_core.training.recipe import Recipe


def retrain(
    network: nn.Module,
    batches: SyntheticBatches,
    recipe: Recipe,
    temperature: float,
    seed: int,
    checkpoint: Checkpoint,
    progress: Progress = no_progress,
) -> list[dict[str, Any]]:
    """Train a network from new weights to predict like the teacher, or continue from `checkpoint.state`.

    Args:
        network: Trained in place, on the device of the teacher; its present weights do not matter. Left in eval mode.
        batches: The synthetic images, labelled by the teacher.
        recipe: How the weights are updated.
        temperature: Temperature of the distillation loss.
        seed: The run's seed; decides initial weights, order, windows and flips.
        checkpoint: Where an interrupted run left off, and where to save after every epoch.
        progress: Called after every step.

    Returns:
        One record per epoch: {"epoch", "loss", "learning_rate", "agreement"}.
    """
    initialise(network, generator(seed, "retrain.weights"))
    objective = functools.partial(distillation_loss, temperature=temperature)
    records = train(
        Trainee(network),
        batches,
        recipe,
        objective,
        seed=seed,
        stage="retrain",
        checkpoint=checkpoint,
        progress=progress,
    )
    network.eval()
    return records
