"""Training of a found architecture from scratch, by distillation."""

import functools
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor, nn

from nas_core.checkpoint import Checkpoint, Progress, no_progress
from nas_core.errors import InputError
from nas_core.ops.initialisation import initialise
from nas_core.ops.stochastic import set_drop_path
from nas_core.search_spaces.base import SearchSpace
from nas_core.seeding import generator
from nas_core.training.augmentation import Augmentation
from nas_core.training.averaging import MovingAverage
from nas_core.training.batches import Batch, SyntheticBatches
from nas_core.training.distillation import distillation_loss
from nas_core.training.loop import Objective, Trainee, train
from nas_core.training.styles import RetrainConfig


@runtime_checkable
class WithFeatures(Protocol):
    """A network with a place for a second classifier, which trains the layers before it and is then thrown away."""

    def with_features(
        self, x: Float[Tensor, "batch channels height width"]
    ) -> tuple[Float[Tensor, "batch classes"], Float[Tensor, "batch features feature_height feature_width"]]:
        """Logits of the network, and what the second classifier sees."""
        ...

    def auxiliary_classifier(self) -> nn.Module:
        """A new second classifier: from the features to logits."""
        ...


class Training(nn.Module):
    """All that learns: a network, and the second classifier if there is one.

    Args:
        network: The network.
        auxiliary: The second classifier of a network that is `WithFeatures`.
    """

    def __init__(self, network: nn.Module, auxiliary: nn.Module | None) -> None:
        super().__init__()
        self.network, self.auxiliary = network, auxiliary


class Student(Trainee):
    """A network in training by distillation. What a setting asks for and the network does not have is left out.

    Args:
        network: Its weights learn.
        config: The recipe, and what happens in training alone.
    """

    def __init__(self, network: nn.Module, config: RetrainConfig) -> None:
        auxiliary = None
        if config.auxiliary_weight > 0 and isinstance(network, WithFeatures):
            device = next(network.parameters()).device
            auxiliary = network.auxiliary_classifier().to(device)
        super().__init__(Training(network, auxiliary))
        self._student, self._auxiliary, self._config = network, auxiliary, config
        self.average = MovingAverage(network, config.average_decay) if config.average_decay > 0 else None

    def start_epoch(self, epoch: int) -> None:
        """Ramp the rate of dropped paths up linearly."""
        set_drop_path(self._student, self._config.drop_path * epoch / self._config.epochs)

    def forward(self, images: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch classes"]:
        """Logits of the network alone."""
        return self._student(images)

    def loss(self, batch: Batch, objective: Objective, /) -> tuple[Tensor, Tensor]:
        """The objective, plus the weighted one of the second classifier if there is one."""
        if self._auxiliary is None or not isinstance(self._student, WithFeatures):
            return super().loss(batch, objective)
        logits, features = self._student.with_features(batch.images)
        both = [objective(student, batch.teacher_logits) for student in (logits, self._auxiliary(features))]
        return both[0] + self._config.auxiliary_weight * both[1], logits

    def after_step(self) -> None:
        """Take the new weights into their moving average."""
        if self.average is not None:
            self.average.update(self._student)

    def state(self) -> dict[str, Any]:
        """The moving average, if there is one."""
        return {} if self.average is None else {"average": self.average.state()}

    def load(self, state: dict[str, Any], /) -> None:
        """Take up a `state`."""
        if self.average is not None:
            self.average.load(state["average"])


def check_retraining(searched: SearchSpace, space: SearchSpace, config: RetrainConfig) -> None:
    """Refuse what networks of a space do not have, before anything expensive starts.

    Args:
        searched: The space of the search.
        space: The same with the sizes of retraining.
        config: What is asked for.

    Raises:
        InputError: If the sizes of retraining change what there is to choose, paths cannot be dropped, there is no
            place for a second classifier, or cutout leaves nothing.
    """
    for before, after in zip(searched.slots, space.slots, strict=True):
        if before.operations != after.operations:
            changed = ", ".join(sorted(set(before.operations) ^ set(after.operations)))
            raise InputError(
                f"retrain.width = {config.width:g} changes the choices of search space '{space.name}': {before.name} "
                f"has {changed} at the size of the search or at that of retraining, not at both; choose another width"
            )
    if config.drop_path > 0 and not space.drops_paths:
        raise InputError(
            f"networks of search space '{space.name}' have no paths that could be dropped; set retrain.drop_path to 0"
        )
    if config.auxiliary_weight > 0:
        space.check_auxiliary()
    side = min(space.input_shape[1:])
    if config.cutout >= side:
        raise InputError(
            f"retrain.cutout = {config.cutout} can take all of an image of {space.input_shape[1]} x "
            f"{space.input_shape[2]} pixels; set it to {side // 2} or less"
        )


def augmentation(config: RetrainConfig) -> Augmentation:
    """How images vary in a retraining."""
    return Augmentation(config.crop_scale, config.cutout, config.mixup, config.color_jitter)


def retrain(
    network: nn.Module,
    batches: SyntheticBatches,
    config: RetrainConfig,
    seed: int,
    checkpoint: Checkpoint,
    progress: Progress = no_progress,
) -> list[dict[str, Any]]:
    """Train a network from new weights to predict like the teacher, or continue from `checkpoint.state`.

    Args:
        network: Trained in place, on the device of the teacher; its present weights do not matter. Left in eval mode.
        batches: The synthetic images, labelled by the teacher.
        config: How the weights are updated; batch size and augmentation are those of `batches`.
        seed: The run's seed; decides initial weights, order, windows, flips and whatever else is drawn.
        checkpoint: Where an interrupted run left off, and where to save after every epoch.
        progress: Called after every step.

    Returns:
        One record per epoch: {"epoch", "loss", "learning_rate", "agreement"}, of the weights as they learn.
    """
    student = Student(network, config)
    # The network first: a second classifier does not change the weights that it starts from.
    initialise(student.network, generator(seed, "retrain.weights"))
    objective = functools.partial(distillation_loss, temperature=config.temperature)
    records = train(
        student,
        batches,
        config,
        objective,
        seed=seed,
        stage="retrain",
        checkpoint=checkpoint,
        progress=progress,
    )
    if student.average is not None:
        student.average.copy_to(network)
    network.eval()
    return records
