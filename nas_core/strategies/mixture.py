"""A supernet whose gates are a relaxation of the choice, in training together with its architecture weights.

In each step architecture weights (alpha) go down the validation loss, then the network's weights go down the training
loss; both losses are the teacher's. What else happens is a matter of the parts, see `DifferentiableSpec`.

Source: Liu, Simonyan and Yang, "DARTS: Differentiable Architecture Search", arXiv:1806.09055, algorithm 1.
"""

import functools
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from nas_core.evaluation.hessian import curvature
from nas_core.ops.batch_norm import kept_statistics
from nas_core.ops.stochastic import reseed
from nas_core.search_spaces.base import SearchSpace, Supernet
from nas_core.seeding import generator
from nas_core.settings.differentiable import DifferentiableSpec, Regularisation, Stage
from nas_core.strategies.alpha import ArchitectureWeights
from nas_core.strategies.base import SearchTask
from nas_core.strategies.perturbation import perturbed
from nas_core.strategies.progressive import SKIP, derive
from nas_core.strategies.rating import Rating
from nas_core.strategies.regularisation import Drops
from nas_core.strategies.second_order import second_order_gradient
from nas_core.training.augmentation import cutout
from nas_core.training.batches import Batch
from nas_core.training.loop import Averages, Step, Trainee

# Training batches that give the mixture its BatchNorm statistics when it is rated; those of training saw drops.
RECALIBRATION_BATCHES = 20


class Mixture(Trainee):
    """A supernet and its architecture weights, which step in turn: first alpha on validation images, then weights.

    Args:
        supernet: Its weights learn.
        task: Gives validation images, loss and budget.
        space: The task's space as far as this stage may choose; its costs count, however deep the supernet is.
        settings: The parts, and how alpha learns.
        stage: Number of the stage.

    Attributes:
        alpha: The architecture weights.
        curve: One record per epoch, see `end_epoch`.
        rated_losses: By epoch, where the search may return it: the mean loss on all validation images, with nothing
            dropped or perturbed.
    """

    def __init__(
        self, supernet: Supernet, task: SearchTask, space: SearchSpace, settings: DifferentiableSpec, stage: int = 0
    ) -> None:
        super().__init__(supernet)
        self.curve: list[dict[str, Any]] = []
        self.rated_losses: dict[int, float] = {}
        self.alpha = ArchitectureWeights(
            space,
            generator(task.seed, "search.alpha", stage),
            task.device,
            settings.relaxation,
            settings.partial.edge_normalisation,
        )
        self._optimiser = torch.optim.Adam(
            self.alpha.parameters(),
            lr=settings.alpha_learning_rate,
            betas=settings.alpha_betas,
            weight_decay=settings.alpha_weight_decay,
        )
        self._task, self._space, self._settings, self._number = task, space, settings, stage
        self._drops = Drops(supernet)

    @property
    def _stage(self) -> Stage:
        return self._settings.progression.stages[self._number]

    def start_epoch(self, epoch: int) -> None:
        """Start the epoch's streams of validation batches and of perturbations."""
        self._epoch, self._steps = epoch, 0
        self._validation = self._task.endless_validation(self._number, epoch)
        self._last: Batch | None = None
        self._perturbing = self._generator("perturbation")
        self._averages = Averages(self._task.device)

    def before_step(self, step: Step, /) -> None:
        """Move the architecture weights down the validation loss, unless the weights learn alone in this epoch."""
        self._batch = step.batch
        self._steps += 1
        if self._epoch >= self._settings.alpha_start_epoch:
            self._alpha_step(step)
        self._start_drops()

    def forward(self, images: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch classes"]:
        """Logits of the mixture, perturbed if the settings say so; no gradient for the architecture weights."""
        settings = self._settings
        images = self._cut(images)
        with torch.no_grad():
            mixture = self.alpha.mixture()
        moved = perturbed(
            mixture,
            settings.perturbation,
            settings.perturbation.epsilon(self._epoch, settings.epochs),
            lambda tried: self._loss_as_it_stands(images, tried),
            self._perturbing,
        )
        alone = settings.relaxation == "one-hot" and settings.perturbation.kind == "none"
        if alone and self.alpha.edge_logits is None:
            # The same as with one-hot weights, and nothing of the other operations is computed.
            return self.network(images, [int(weights.argmax()) for weights in mixture])
        with torch.no_grad():
            gates = self.alpha.gates(moved)
        return self.network(images, gates)

    def end_epoch(self, record: dict[str, Any], /) -> None:
        """Add to the search curve what the validation batches showed and what the architecture would now be.

        {"epoch", "stage" (where there are several), "loss", "validation_loss", "validation_agreement" (means over the
        epoch's alpha steps with what they drop, absent without any), "architecture", "macs" (and the budget's cost,
        by name), "skip_connect" (how many slots chose it),
        "largest_eigenvalue" and "trace" (of the Hessian, where it is due), "gates" (weights of the mixture per slot
        of the whole space)}.
        """
        self._drops.off()
        architecture = derive(self._settings.progression, self.alpha, self._space, self._task.budget)
        entry = {
            "epoch": self._number * self._settings.epochs + record["epoch"],
            "loss": record["loss"],
            "architecture": str(architecture),
            **self._task.budget.record(self._task.space, self._task.space.choices(architecture)),
            "skip_connect": architecture.operations.count(SKIP),
            "gates": self._gates_of_the_whole_space(),
        }
        if len(self._settings.progression.stages) > 1:
            entry["stage"] = self._number
        if self._last is not None:
            entry |= {f"validation_{name}": value for name, value in self._averages.read().items()}
        if self._hessian_is_due():
            entry |= self._curvature()
        self.curve.append(entry)
        if self._may_be_returned():
            self.rated_losses[record["epoch"]] = self._rated_loss()

    def finished(self) -> bool:
        """Whether the stopping rule ends the search."""
        return self.stop_epoch() is not None

    def stop_epoch(self) -> int | None:
        """The epoch whose architecture the stopping rule returns to; None: the rule has not ended the search."""
        looks = [record for record in self.curve[: self._settings.epochs - 1] if "largest_eigenvalue" in record]
        if self._settings.stopping.rule == "epochs":
            return None
        return self._settings.stopping.stop_epoch(
            [record["epoch"] for record in looks], [record["largest_eigenvalue"] for record in looks]
        )

    def state(self) -> dict[str, Any]:
        """Architecture weights, their optimiser, and the records so far."""
        return {
            "alpha": self.alpha.state(),
            "optimiser": self._optimiser.state_dict(),
            "curve": self.curve,
            "rated_losses": self.rated_losses,
        }

    def load(self, state: dict[str, Any], /) -> None:
        """Take up a `state`."""
        self.alpha.load(state["alpha"])
        self._optimiser.load_state_dict(state["optimiser"])
        self.curve, self.rated_losses = state["curve"], state["rated_losses"]

    def _alpha_step(self, step: Step) -> None:
        """One step of the architecture weights at the present weights, or through their next step."""
        self._last = batch = next(self._validation)

        def loss_of(batch: Batch) -> tuple[Tensor, Tensor]:
            self._start_drops()
            logits = self.network(batch.images, self.alpha.gates())
            return self._task.objective(logits, batch.teacher_logits), logits

        def validation_loss() -> Tensor:
            loss, logits = loss_of(batch)
            self._averages.add(loss, logits, batch.teacher_logits)
            return loss + self._cost()

        parameters = self.alpha.parameters()
        if self._settings.order == "second":
            trained = replace(step.batch, images=self._cut(step.batch.images))
            # Statistics at weights that were only tried are none of the network's.
            with kept_statistics(self.network):
                _, gradients = second_order_gradient(
                    lambda: loss_of(trained)[0], validation_loss, step.optimiser, parameters
                )
        else:
            # Only these gradients are computed: the weights' own step must not see the validation images.
            gradients = torch.autograd.grad(validation_loss(), parameters, materialize_grads=True)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
        if self._settings.alpha_gradient_clip is not None:
            clip_grad_norm_(parameters, self._settings.alpha_gradient_clip)
        self._optimiser.step()
        self.alpha.project()

    def _cost(self) -> Tensor | float:
        """The penalty on what the mixture is expected to cost."""
        if self._settings.cost_weight == 0:
            return 0.0
        budget = self._task.budget
        expected = budget.expected(self._space, self.alpha.mixture())
        return self._settings.cost_weight * expected / budget.reference(self._task.space)

    def _loss_as_it_stands(self, images: Tensor, mixture: Sequence[Tensor]) -> Tensor:
        """The training loss of a mixture in eval mode, with a graph to the mixture."""
        self.network.eval()
        logits = self.network(images, self.alpha.gates(mixture))
        self.network.train()
        return self._task.objective(logits, self._batch.teacher_logits)

    def _start_drops(self) -> None:
        """All passes of one step, alpha's and the weights', lose the same things and meet the same noise."""
        settings = self._settings
        path = Regularisation.ramp(settings.regularisation.drop_path, self._epoch, settings.epochs)
        skip = self._stage.skip_dropout_at(self._epoch, settings.epochs, settings.alpha_start_epoch)
        self._drops.on(self._generator("drops", self._steps), path, skip)
        reseed(self.network, self._generator("layers", self._steps))

    def _cut(self, images: Tensor) -> Tensor:
        """Training images without the squares that they lose in this step."""
        settings = self._settings
        chance = Regularisation.ramp(settings.regularisation.cutout, self._epoch, settings.epochs)
        if chance == 0:
            return images
        side = round(settings.regularisation.cutout_side * min(images.shape[2:]))
        return cutout(images, chance, side, self._generator("cutout", self._steps))

    def _hessian_is_due(self) -> bool:
        every = self._settings.hessian_every
        return every is not None and (self._epoch % every == 0 or self._epoch == self._settings.epochs - 1)

    def _curvature(self) -> dict[str, float]:
        """Of the loss on the last validation batch at the present weights; leaves no trace in the network."""
        batch = next(self._validation) if self._last is None else self._last
        with kept_statistics(self.network):
            logits = self.network(batch.images, self.alpha.gates())
            loss = self._task.objective(logits, batch.teacher_logits)
            return asdict(curvature(loss, self.alpha.logits, self._generator("curvature")))

    def _may_be_returned(self) -> bool:
        """Whether the search may end with this epoch's architecture."""
        last_stage = self._number + 1 == len(self._settings.progression.stages)
        if self._epoch == self._settings.epochs - 1:
            return last_stage
        stopping = self._settings.stopping
        return stopping.rule == "hessian" and self._epoch >= stopping.earliest and self._hessian_is_due()

    def _rated_loss(self) -> float:
        """The mixture's loss on all validation images; leaves no trace in the network."""
        with kept_statistics(self.network):
            score = self._rating(self.network, self.alpha.gates())
        self.network.train()
        return -score

    @functools.cached_property
    def _rating(self) -> Rating:
        return Rating(self._task, RECALIBRATION_BATCHES)

    def _gates_of_the_whole_space(self) -> list[list[float]]:
        """The mixture, with 0 for operations that an earlier stage dropped."""
        rows = []
        for slot, own, weights in zip(self._task.space.slots, self._space.slots, self.alpha.mixture(), strict=True):
            present = dict(zip(own.operations, weights.tolist(), strict=True))
            rows.append([present.get(operation, 0.0) for operation in slot.operations])
        return rows

    def _generator(self, use: str, *position: int) -> torch.Generator:
        return generator(self._task.seed, f"search.{use}", self._number, self._epoch, *position)
