"""The one training loop: supernets, found architectures and reference teachers learn here.

What differs between them (how images become logits, what else happens around a step) is a `Trainee`; how weights
are updated is a `Recipe`. All draws of an epoch come from a generator of that epoch, so a run that is resumed ends
with the same bytes as one that never stopped.
"""

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

from nas_core.checkpoint import Checkpoint, Progress, no_progress
from nas_core.errors import InputError
from nas_core.ops.stochastic import reseed
from nas_core.precision import mixed_precision, resolve_precision
from nas_core.seeding import generator
from nas_core.training.batches import Batch
from nas_core.training.recipe import Recipe

# A loss of (student logits, teacher logits), a mean over the batch.
Objective = Callable[[Tensor, Tensor], Tensor]

# Reading a figure makes the device wait, so progress shows one that is at most this many steps old.
STEPS_BETWEEN_READINGS = 20


@runtime_checkable
class Batches(Protocol):
    """What the loop trains on; `SyntheticBatches` is one."""

    def __len__(self) -> int:
        """Batches in an epoch."""
        ...

    def epoch(self, generator: torch.Generator) -> Iterator[Batch]:
        """One pass in an order that the generator decides."""
        ...


@dataclass(frozen=True)
class Step:
    """The weight step that is about to happen.

    Attributes:
        batch: Its images and the teacher's logits.
        optimiser: The weights' optimiser, with this step's learning rate already set.
    """

    batch: Batch
    optimiser: torch.optim.SGD


class Trainee:
    """A network in training. This one is run as it is; a strategy overrides what it needs.

    Per epoch the loop calls `start_epoch`, for every batch `before_step`, `loss` and `after_step`, then `end_epoch`.

    Args:
        network: Its parameters are the weights that the loop updates; on the device of the batches.

    Attributes:
        passes: Forward and backward passes whose gradients add up to one step.
    """

    passes: int = 1

    def __init__(self, network: nn.Module) -> None:
        self.network = network

    def start_epoch(self, epoch: int) -> None:
        """Prepare an epoch, such as its generators."""

    def before_step(self, step: Step, /) -> None:
        """Do something before a weight step, such as a step of architecture weights."""

    def forward(self, images: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch classes"]:
        """Logits of the step's images, with a graph to the weights."""
        return self.network(images)

    def loss(self, batch: Batch, objective: Objective, /) -> tuple[Tensor, Tensor]:
        """What a step minimises, and the logits; as it stands, the objective of `forward`."""
        logits = self.forward(batch.images)
        return objective(logits, batch.teacher_logits), logits

    def after_step(self) -> None:
        """See the weights that a step has moved."""

    def end_epoch(self, record: dict[str, Any], /) -> None:
        """See an epoch's record, which may be added to."""

    def finished(self) -> bool:
        """Whether training ends before the next epoch, although the recipe has more."""
        return False

    def state(self) -> dict[str, Any]:
        """What a resumed run needs beside the network's weights."""
        return {}

    def load(self, state: dict[str, Any], /) -> None:
        """Take up a `state`."""


class Averages:
    """Loss and agreement with the teacher averaged over images, kept on the device until they are read.

    Args:
        device: Where the logits are.
    """

    def __init__(self, device: torch.device) -> None:
        self._sums = torch.zeros(2, dtype=torch.float32, device=device)
        self._images = 0

    @torch.no_grad()
    def add(self, loss: Tensor, logits: Tensor, teacher_logits: Tensor) -> None:
        """Count a batch in, with its mean loss and its logits (batch, classes)."""
        agreeing = (logits.argmax(dim=1) == teacher_logits.argmax(dim=1)).sum()
        self._sums += torch.stack([loss * len(logits), agreeing])
        self._images += len(logits)

    def read(self) -> dict[str, float]:
        """{"loss", "agreement"}: the mean loss, and the share of images with the teacher's top class."""
        loss, agreement = (self._sums / self._images).tolist()
        return {"loss": loss, "agreement": agreement}


def train(
    trainee: Trainee,
    batches: Batches,
    recipe: Recipe,
    objective: Objective,
    *,
    seed: int,
    stage: str,
    checkpoint: Checkpoint,
    progress: Progress = no_progress,
) -> list[dict[str, Any]]:
    """Train a network, or continue from `checkpoint.state`; state is saved after every epoch.

    Args:
        trainee: The network and how it is run; left in train mode.
        batches: What it learns from.
        recipe: How its weights are updated.
        objective: What is minimised.
        seed: The run's seed.
        stage: Names the random stream, such as "retrain".
        checkpoint: Where an interrupted run left off, and where to save.
        progress: Called after every step; figures are the epoch's averages so far.

    Returns:
        One record per epoch: {"epoch", "loss", "learning_rate" (of its last step), "agreement"} and what the trainee
        adds; loss and agreement are averages over the epoch's steps, each before its update. Fewer records than the
        recipe has epochs if the trainee is `finished` before.

    Raises:
        InputError: If the loss is no longer a finite number.
    """
    # As fast or faster on every device, and the layout in which bfloat16 pays most.
    trainee.network.to(memory_format=torch.channels_last)
    optimiser = torch.optim.SGD(
        parameter_groups(trainee.network, recipe.weight_decay),
        lr=recipe.learning_rate,
        momentum=0.9,
        nesterov=recipe.nesterov,
    )
    records: list[dict[str, Any]] = []
    if checkpoint.state is not None:
        # Copied, because the optimiser would go on to change the tensors that it is given.
        state = copy.deepcopy(checkpoint.state)
        trainee.network.load_state_dict(state["network"])
        optimiser.load_state_dict(state["optimiser"])
        trainee.load(state["trainee"])
        records = state["records"]
    for epoch in range(len(records), recipe.epochs):
        if trainee.finished():
            break
        order = generator(seed, f"{stage}.batches", epoch)
        trainee.network.train()
        reseed(trainee.network, generator(seed, f"{stage}.layers", epoch))
        record = _train_epoch(trainee, batches, recipe, objective, optimiser, epoch, order, progress)
        if not math.isfinite(record["loss"]):
            raise InputError(
                f"{stage}: the loss became {record['loss']} in epoch {epoch}; lower learning_rate or gradient_clip"
            )
        trainee.end_epoch(record)
        records.append(record)
        state = {
            "network": trainee.network.state_dict(),
            "optimiser": optimiser.state_dict(),
            "trainee": trainee.state(),
            "records": records,
        }
        # A copy, because whoever keeps the state must not see it change when training goes on.
        checkpoint.save(copy.deepcopy(state))
    return records


def _train_epoch(
    trainee: Trainee,
    batches: Batches,
    recipe: Recipe,
    objective: Objective,
    optimiser: torch.optim.SGD,
    epoch: int,
    order: torch.Generator,
    progress: Progress,
) -> dict[str, Any]:
    """One pass over the batches; returns its record."""
    weights = list(trainee.network.parameters())
    device = weights[0].device
    dtype = resolve_precision(recipe.precision, device)
    averages = Averages(device)

    def exact(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
        """The objective in float32, whatever arithmetic the network has."""
        return objective(student_logits.float(), teacher_logits)

    figures: dict[str, float] = {}
    learning_rate = 0.0
    trainee.start_epoch(epoch)
    for position, batch in enumerate(_labelled(batches, order, dtype, device)):
        done = epoch * len(batches) + position
        learning_rate = recipe.learning_rate_at(done, len(batches))
        for group in optimiser.param_groups:
            group["lr"] = learning_rate
        trainee.before_step(Step(batch, optimiser))
        # To None, not to zero: neither decay nor momentum may move the weights of a path that did not run.
        optimiser.zero_grad(set_to_none=True)
        for _ in range(trainee.passes):
            with mixed_precision(dtype, device):
                loss, logits = trainee.loss(batch, exact)
            loss.backward()
            averages.add(loss, logits, batch.teacher_logits)
        clip_grad_norm_(weights, recipe.gradient_clip)
        optimiser.step()
        trainee.after_step()
        if position % STEPS_BETWEEN_READINGS == 0:
            figures = averages.read()
        progress(done + 1, recipe.epochs * len(batches), figures)
    return {"epoch": epoch, "learning_rate": learning_rate, **averages.read()}


def _labelled(batches: Batches, order: torch.Generator, dtype: torch.dtype, device: torch.device) -> Iterator[Batch]:
    """The batches of an epoch, which the teacher labels in the arithmetic of the network that learns."""
    epoch = batches.epoch(order)
    while True:
        # Not around the whole loop: what happens between two batches has an arithmetic of its own.
        with mixed_precision(dtype, device):
            batch = next(epoch, None)
        if batch is None:
            return
        yield batch


def parameter_groups(network: nn.Module, weight_decay: float) -> list[dict]:
    """Weight decay for tensors of more than one dimension, none for the rest."""
    parameters = list(network.parameters())
    return [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
