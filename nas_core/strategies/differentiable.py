"""DARTS, first order: the gates are a softmax over architecture weights, which learn by gradient descent.

Source: Liu, Simonyan and Yang, "DARTS: Differentiable Architecture Search", arXiv:1806.09055, algorithm 1 with
xi = 0. Weights learn on the training images, architecture weights on the validation images, both from the teacher.
"""

import itertools
from collections.abc import Iterator
from typing import Annotated, Any, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from nas_core.checkpoint import Checkpoint, Progress, no_progress
from nas_core.search_spaces.base import Architecture, SearchSpace, Supernet
from nas_core.seeding import generator
from nas_core.strategies.base import SearchOutcome, SearchTask, Strategy, strategies
from nas_core.strategies.budget import check_budget
from nas_core.training.batches import Batch
from nas_core.training.loop import Averages, Step, Trainee, train
from nas_core.training.recipe import Recipe

Decay = Annotated[float, Field(ge=0, lt=1)]


class DartsSpec(Recipe):
    """DARTS (Liu et al. 2019), first order: mix all operations and learn the mixture by gradient descent."""

    name: Literal["darts"] = "darts"
    epochs: int = Field(default=50, ge=1, description="passes over the training images")
    learning_rate: float = Field(default=0.025, gt=0, description="peak learning rate of the supernet's weights")
    final_learning_rate: float = Field(
        default=0.001, ge=0, description="learning rate of the weights that the cosine ends at"
    )
    warmup_epochs: int = Field(
        default=0, ge=0, description="epochs of linear warm-up before the cosine; fewer than epochs"
    )
    weight_decay: float = Field(default=3e-4, ge=0, description="L2 penalty on convolution and linear weights")
    alpha_learning_rate: float = Field(
        default=3e-4, gt=0, description="learning rate of Adam for the architecture weights"
    )
    alpha_betas: tuple[Decay, Decay] = Field(
        default=(0.5, 0.999),
        description="decay rates of Adam's two moments for the architecture weights, each in [0, 1)",
    )
    alpha_weight_decay: float = Field(default=1e-3, ge=0, description="L2 penalty on the architecture weights")


class ArchitectureWeights:
    """One trainable logit (alpha) per operation of each slot; no part of the supernet, whose optimiser never sees it.

    Args:
        space: Gives the slots.
        generator: Draws the initial values, 1e-3 N(0, 1).
        device: Where the supernet is.
    """

    def __init__(self, space: SearchSpace, generator: torch.Generator, device: torch.device) -> None:
        self._space = space
        self.logits = [
            (1e-3 * torch.randn(len(slot.operations), generator=generator)).to(device).requires_grad_()
            for slot in space.slots
        ]

    def gates(self) -> list[Tensor]:
        """Weights of the mixture: a softmax per slot, with a graph to the logits."""
        return [logits.softmax(dim=0) for logits in self.logits]

    def derive(self, max_macs: int | None) -> Architecture:
        """The architecture with the largest product of gates within the budget, in which only what is chosen counts.

        Without a budget that is the argmax per slot of NAS-Bench-201, `none` included, and the two strongest edges per
        node of DARTS.
        """
        scores = [logits.detach().log_softmax(dim=0).tolist() for logits in self.logits]
        return self._space.architecture(self._space.best(scores, max_macs))


class Mixture(Trainee):
    """A supernet and its architecture weights, which step in turn: first alpha on validation images, then weights.

    Args:
        supernet: Its weights learn.
        task: Gives space, validation images, loss and budget.
        alpha: The architecture weights.
        optimiser: Updates them.

    Attributes:
        curve: One record per epoch, see `end_epoch`.
    """

    def __init__(
        self, supernet: Supernet, task: SearchTask, alpha: ArchitectureWeights, optimiser: torch.optim.Optimizer
    ) -> None:
        super().__init__(supernet)
        self.curve: list[dict[str, Any]] = []
        self._task, self._alpha, self._optimiser = task, alpha, optimiser

    def start_epoch(self, epoch: int) -> None:
        """Start the epoch's endless stream of validation batches."""
        self._validation = _endless_validation(self._task, epoch)
        self._averages = Averages(self._task.device)

    def before_step(self, _step: Step, /) -> None:
        """Move the architecture weights down the validation loss at the present weights."""
        batch = next(self._validation)
        logits = self.network(batch.images, self._alpha.gates())
        loss = self._task.objective(logits, batch.teacher_logits)
        # Only these gradients are computed: the weights' own step must not see the validation images.
        gradients = torch.autograd.grad(loss, self._alpha.logits)
        for logit, gradient in zip(self._alpha.logits, gradients, strict=True):
            logit.grad = gradient
        self._optimiser.step()
        self._averages.add(loss, logits, batch.teacher_logits)

    def forward(self, images: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch classes"]:
        """Logits of the mixture; no gradient for the architecture weights."""
        return self.network(images, [gate.detach() for gate in self._alpha.gates()])

    def end_epoch(self, record: dict[str, Any], /) -> None:
        """Add to the search curve what the validation batches showed and what the architecture would now be.

        {"epoch", "loss", "validation_loss", "validation_agreement" (means over the epoch's alpha steps),
        "architecture", "macs", "skip_connect" (how many slots chose it), "gates" (softmax per slot)}.
        """
        validation = self._averages.read()
        architecture = self._alpha.derive(self._task.max_macs)
        self.curve.append(
            {
                "epoch": record["epoch"],
                "loss": record["loss"],
                "validation_loss": validation["loss"],
                "validation_agreement": validation["agreement"],
                "architecture": str(architecture),
                "macs": self._task.space.macs(self._task.space.choices(architecture)),
                "skip_connect": architecture.operations.count("skip_connect"),
                "gates": [gate.tolist() for gate in self._alpha.gates()],
            }
        )

    def state(self) -> dict[str, Any]:
        """Architecture weights, their optimiser, and the curve so far."""
        logits = [logit.detach() for logit in self._alpha.logits]
        return {"alpha": logits, "optimiser": self._optimiser.state_dict(), "curve": self.curve}

    @torch.no_grad()
    def load(self, state: dict[str, Any], /) -> None:
        """Take up a `state`."""
        for logit, saved in zip(self._alpha.logits, state["alpha"], strict=True):
            logit.copy_(saved)
        self._optimiser.load_state_dict(state["optimiser"])
        self.curve = state["curve"]


@strategies.register(DartsSpec)
class Darts(Strategy):
    """First-order DARTS.

    Args:
        alpha_learning_rate: Learning rate of Adam for the architecture weights.
        alpha_betas: Decay rates of Adam's moments.
        alpha_weight_decay: L2 penalty on the architecture weights.
        recipe: The fields of `Recipe`, which say how the supernet's weights learn.
    """

    def __init__(
        self,
        *,
        alpha_learning_rate: float,
        alpha_betas: tuple[float, float],
        alpha_weight_decay: float,
        **recipe: Any,
    ) -> None:
        self.recipe = Recipe(**recipe)
        self._adam = {"lr": alpha_learning_rate, "betas": alpha_betas, "weight_decay": alpha_weight_decay}

    def search(self, task: SearchTask, checkpoint: Checkpoint, progress: Progress = no_progress) -> SearchOutcome:
        """Train weights and architecture weights together, then derive; state is saved after every epoch."""
        check_budget(task.space, task.max_macs)
        alpha = ArchitectureWeights(task.space, generator(task.seed, "search.alpha"), task.device)
        mixture = Mixture(task.supernet(), task, alpha, torch.optim.Adam(alpha.logits, **self._adam))
        training = train(
            mixture,
            task.train,
            self.recipe,
            task.objective,
            seed=task.seed,
            stage="search",
            checkpoint=checkpoint,
            progress=progress,
        )
        return SearchOutcome(alpha.derive(task.max_macs), training, mixture.curve)


def _endless_validation(task: SearchTask, epoch: int) -> Iterator[Batch]:
    """Validation batches, reshuffled whenever they run out."""
    for pass_ in itertools.count():
        yield from task.validation.epoch(generator(task.seed, "search.validation", epoch, pass_))
