"""Differentiable search as a config section of orthogonal parts; a published method is a choice of each.

Order x perturbation x partial channels x progression x regularisation x stopping. Fields that no part needs are the
settings of DARTS (arXiv:1806.09055).
"""

import math
from collections.abc import Sequence
from typing import Literal

from pydantic import Field, model_validator

from nas_core.registry import Spec
from nas_core.settings.strategies import Decay, strategies
from nas_core.training.recipe import Recipe

Relaxation = Literal["softmax", "one-hot"]

# How fast the dropout of skips fades once architecture weights learn, per epoch.
SKIP_DROPOUT_FADING = 0.2


class Perturbation(Spec):
    """How far, and in which direction, the mixture is moved in each step of the network's weights."""

    kind: Literal["none", "random", "adversarial"] = Field(
        default="none",
        description="none; random: uniform in the box; adversarial: up the training loss within the box",
    )
    start: float = Field(default=0.03, ge=0, le=1, description="half side of the box (epsilon) in the first epoch")
    growth: float = Field(
        default=0.27, ge=0, le=1, description="what epsilon gains by the end, in proportion to the epochs done"
    )
    steps: int = Field(default=7, ge=1, description="steps up the loss, each 2 epsilon / steps long; adversarial only")

    def epsilon(self, epoch: int, epochs: int) -> float:
        """Half the side of the box in an epoch, counted from 0."""
        return self.start + self.growth * epoch / epochs


class Stage(Spec):
    """One stage of the search: a supernet of its own, trained from new weights for all epochs."""

    extra_cells: int = Field(default=0, ge=0, description="cells more than the space has, in all")
    operations: int | None = Field(
        default=None,
        ge=1,
        description="operations that each slot has at most, the best of the stage before; null: all, as in the first",
    )
    skip_dropout: float = Field(default=0.0, ge=0, lt=1, description="initial dropout of identity skips; it fades")

    def skip_dropout_at(self, epoch: int, epochs: int, alpha_start: int) -> float:
        """Dropout of identity skips in an epoch of the stage, counted from 0.

        It falls linearly while weights learn alone, up to epoch `alpha_start`; then it starts over and decays.
        """
        if epoch < alpha_start:
            return self.skip_dropout * (epochs - epoch - 1) / epochs
        return self.skip_dropout * math.exp(-SKIP_DROPOUT_FADING * (epoch - alpha_start))


class Progression(Spec):
    """Stages of the search, and what its result may not hold."""

    stages: tuple[Stage, ...] = Field(default=(Stage(),), min_length=1, description="the stages, one after the other")
    skip_cap: int | None = Field(
        default=None, ge=0, description="skip connections that the first cell of the result has at most; null: no cap"
    )
    none_allowed: bool = Field(
        default=True, description="whether the result may choose `none` where the space lets it; false: removed last"
    )

    @model_validator(mode="after")
    def _the_first_stage_has_all_operations(self) -> "Progression":
        if self.stages[0].operations is not None:
            raise ValueError(
                f"the first of stages has operations = {self.stages[0].operations}, and no stage before it says which "
                "are the best; leave it out there"
            )
        return self


class Regularisation(Spec):
    """Random losses in the steps of the search; both chances rise linearly from 0 in the first epoch."""

    drop_path: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="chance of an image to lose an edge, in the last epoch; others are scaled. Spaces of edges only",
    )
    cutout: float = Field(
        default=0.0, ge=0, le=1, description="chance of a training image to lose a square, in the last epoch"
    )
    cutout_side: float = Field(default=0.5, gt=0, le=1, description="side of the square, as a share of the image's")

    @staticmethod
    def ramp(chance: float, epoch: int, epochs: int) -> float:
        """A chance in an epoch, counted from 0: 0 in the first, all of it in the last."""
        return chance * epoch / max(1, epochs - 1)


class Stopping(Spec):
    """Whether the search may end before its last epoch."""

    rule: Literal["epochs", "hessian"] = Field(
        default="epochs",
        description="epochs: never; hessian: when the largest eigenvalue has grown by `ratio`, going back to before",
    )
    window: int = Field(default=5, ge=1, description="evaluations in the moving average of the largest eigenvalue; odd")
    ratio: float = Field(default=1.3, gt=1, description="growth of the moving average at which the search ends")
    lookback: int = Field(
        default=4, ge=1, description="evaluations between the two averages; the result is that of the earlier one"
    )
    earliest: int = Field(default=10, ge=0, description="first epoch, counted from 0, whose result may be returned")

    @model_validator(mode="after")
    def _window_has_a_middle(self) -> "Stopping":
        if self.window % 2 == 0:
            raise ValueError(f"window = {self.window} must be odd, so that the moving average belongs to an epoch")
        return self

    def fewest_epochs(self, every: int) -> int:
        """Epochs that a search needs for the rule to be able to end it, with an evaluation in every `every`-th."""
        first = math.ceil(self.earliest / every)
        # The last epoch is none to stop at.
        return every * (first + self.window // 2 + self.lookback) + 2

    def stop_epoch(self, epochs: Sequence[int], eigenvalues: Sequence[float]) -> int | None:
        """The epoch to go back to, if the search should end now.

        The moving average exists from (window + 1) / 2 evaluations on, is the mean of all until there are `window`,
        and belongs to the evaluation (window - 1) / 2 before its last one.

        Args:
            epochs: When the eigenvalues were computed, equally spaced; the search's last epoch is not among them.
            eigenvalues: The largest eigenvalue at the end of each.

        Returns:
            One of `epochs`, or None if the search goes on.
        """
        half = self.window // 2
        earlier = len(eigenvalues) - 1 - half - self.lookback
        if earlier < 0 or epochs[earlier] < self.earliest:
            return None
        previous = _mean_of_last(eigenvalues[: len(eigenvalues) - self.lookback], self.window)
        # A loss that was not curved upwards has no growth to speak of.
        grown = previous > 0 and _mean_of_last(eigenvalues, self.window) > self.ratio * previous
        return epochs[earlier] if grown else None


class PartialChannels(Spec):
    """PC-DARTS (arXiv:1907.05737): only some channels of an edge pass through its operations."""

    divisor: int = Field(default=1, ge=1, description="1 / divisor of the channels pass through the operations (K)")
    edge_normalisation: bool = Field(
        default=False, description="whether each edge has a weight of its own, a softmax over the edges of its node"
    )


class GridPoint(Spec):
    """A run of its own; the fields that it gives take the place of the strategy's."""

    weight_decay: float | None = Field(
        default=None, ge=0, description="L2 penalty on convolution and linear weights; null: the strategy's"
    )
    regularisation: Regularisation | None = Field(default=None, description="random losses; null: the strategy's")


@strategies.declare
class DifferentiableSpec(Recipe):
    """Mix all operations and learn the mixture by gradient descent; every part is free to choose."""

    name: Literal["differentiable"] = "differentiable"
    epochs: int = Field(default=50, ge=1, description="passes over the training images, in each stage")
    learning_rate: float = Field(default=0.025, gt=0, description="peak learning rate of the supernet's weights")
    final_learning_rate: float = Field(
        default=0.001, ge=0, description="learning rate of the weights that the cosine ends at"
    )
    warmup_epochs: int = Field(
        default=0, ge=0, description="epochs of linear warm-up before the cosine; fewer than epochs"
    )
    weight_decay: float = Field(default=3e-4, ge=0, description="L2 penalty on convolution and linear weights")
    nesterov: bool = Field(
        default=False,
        description="whether the weights' momentum looks ahead (Nesterov's), as in NAS-Bench-201's protocol; false: "
        "plain momentum, as in the published codes",
    )
    alpha_learning_rate: float = Field(
        default=3e-4, gt=0, description="learning rate of Adam for the architecture weights"
    )
    alpha_betas: tuple[Decay, Decay] = Field(
        default=(0.5, 0.999),
        description="decay rates of Adam's two moments for the architecture weights, each in [0, 1)",
    )
    alpha_weight_decay: float = Field(default=1e-3, ge=0, description="L2 penalty on the architecture weights")
    alpha_gradient_clip: float | None = Field(
        default=None, gt=0, description="largest L2 norm of the gradient of all architecture weights; null: no limit"
    )
    alpha_start: float = Field(
        default=0.0, ge=0, lt=1, description="share of a stage's epochs in which the network's weights learn alone"
    )
    relaxation: Relaxation = Field(
        default="softmax",
        description="softmax: all operations are mixed; one-hot: the best one runs, its gradient moves all (NASP)",
    )
    order: Literal["first", "second"] = Field(
        default="first",
        description="first: weights count as fixed; second: the gradient goes through their next step",
    )
    perturbation: Perturbation = Field(default=Perturbation(), description="of the mixture while the weights learn")
    partial: PartialChannels = Field(default=PartialChannels(), description="channels that the operations see")
    progression: Progression = Field(default=Progression(), description="stages, and limits of the result")
    regularisation: Regularisation = Field(default=Regularisation(), description="random losses while weights learn")
    stopping: Stopping = Field(default=Stopping(), description="when the search ends")
    hessian_every: int | None = Field(
        default=None,
        ge=1,
        description="epochs between two looks at the validation loss's curvature in alpha, the last epoch included; "
        "null: never",
    )
    cost_weight: float = Field(
        default=0.0,
        ge=0,
        description="weight of the expected cost in the loss of alpha, as a share of its limit (of the dearest "
        "architecture without one); the cost is what search limits, by default multiply-accumulates. It is that of the "
        "supernet's mixture, every slot counting once",
    )
    grid: tuple[GridPoint, ...] = Field(
        default=(GridPoint(),), min_length=1, description="independent runs; the one that validates best is kept"
    )

    @model_validator(mode="after")
    def _stopping_can_be_decided(self) -> "DifferentiableSpec":
        if self.stopping.rule == "hessian" and self.hessian_every is None:
            raise ValueError("stopping.rule = hessian needs hessian_every, such as 2")
        if self.stopping.rule == "hessian" and len(self.progression.stages) > 1:
            raise ValueError("stopping.rule = hessian needs a single stage in progression.stages")
        if self.stopping.rule == "hessian" and self.hessian_every is not None:
            fewest = self.stopping.fewest_epochs(self.hessian_every)
            if self.epochs < fewest:
                raise ValueError(
                    f"stopping.rule = hessian cannot end a search of epochs = {self.epochs}: with hessian_every = "
                    f"{self.hessian_every} and its window, lookback and earliest it needs {fewest} or more"
                )
        return self

    @model_validator(mode="after")
    def _the_next_step_is_the_one_taken(self) -> "DifferentiableSpec":
        if self.order == "second" and self.perturbation.kind != "none":
            raise ValueError(
                f"order = second looks through a step at the mixture, but with perturbation.kind = "
                f"{self.perturbation.kind} the weights step elsewhere; choose order = first, as SDARTS does"
            )
        return self

    @model_validator(mode="after")
    def _the_grid_leaves_something_of_what_is_set(self) -> "DifferentiableSpec":
        for name in GridPoint.model_fields:
            value = getattr(self, name)
            replaced = all(getattr(point, name) is not None for point in self.grid)
            if replaced and value != type(self).model_fields[name].default:
                raise ValueError(
                    f"{name} = {value} would never be used, because every point of grid has its own {name}; leave it "
                    "out, or set grid as well"
                )
        return self

    @property
    def alpha_start_epoch(self) -> int:
        """The first epoch of a stage, counted from 0, in which architecture weights learn."""
        # Rounded first: 0.3 x 50 is a little less than 15.
        return int(round(self.alpha_start * self.epochs, 6))

    def at(self, point: GridPoint) -> "DifferentiableSpec":
        """The settings of one run of the grid."""
        given = {key: value for key, value in point.values().items() if value is not None}
        return self.model_copy(update={**given, "grid": (GridPoint(),)})


def _mean_of_last(values: Sequence[float], count: int) -> float:
    last = values[-count:]
    return sum(last) / len(last)
