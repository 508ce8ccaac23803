"""Training of a found architecture from scratch, by distillation."""

import functools
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor, nn

from nas_core.checkpoint import Checkpoint, Progress, no_progress
from nas_core.ops.initialisation import initialise
from nas_core.seeding import generator
from nas_core.training.batches import Batch, SyntheticBatches
from nas_core.training.distillation import distillation_loss
from nas_core.training.loop import Objective, Trainee, train
from nas_core.training.recipe import Recipe


@runtime_checkable
class Regularised(Protocol):
    """A stand-alone network with parts that act in training alone.

    Attributes:
        auxiliary_weight: Weight of a second classifier's loss; 0: there is none.
    """

    auxiliary_weight: float

    def set_progress(self, done: float) -> None:
        """Prepare an epoch, at which a share of the training in [0, 1) is over."""
        ...

    def with_auxiliary(
        self, x: Float[Tensor, "batch channels height width"]
    ) -> tuple[Float[Tensor, "batch classes"], Float[Tensor, "batch classes"]]:
        """Logits of the network and of its second classifier."""
        ...


class Student(Trainee):
    """A found network in training.

    Args:
        network: Its weights learn.
        epochs: Epochs of the whole training.
    """

    def __init__(self, network: nn.Module, epochs: int) -> None:
        super().__init__(network)
        self._epochs = epochs

    def start_epoch(self, epoch: int) -> None:
        """Tell the network how far training is, if that matters to it."""
        if isinstance(self.network, Regularised):
            self.network.set_progress(epoch / self._epochs)

    def loss(self, batch: Batch, objective: Objective, /) -> tuple[Tensor, Tensor]:
        """The objective, plus the weighted one of the second classifier if there is one."""
        if not isinstance(self.network, Regularised) or self.network.auxiliary_weight == 0:
            return super().loss(batch, objective)
        logits, auxiliary = self.network.with_auxiliary(batch.images)
        both = [objective(student, batch.teacher_logits) for student in (logits, auxiliary)]
        return both[0] + self.network.auxiliary_weight * both[1], logits


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
        Student(network, recipe.epochs),
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
