"""Differentiable search as a config section of orthogonal parts; a published method is a choice of each.

Order x perturbation x partial channels x progression x regularisation x stopping. Fields that no part needs are the
settings of DARTS (arXiv:1806.09055).
"""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from nas_core.registry import Spec
from nas_core.strategies.alpha import Relaxation
from nas_core.strategies.perturbation import Perturbation
from nas_core.strategies.progressive import Progression
from nas_core.strategies.regularisation import Regularisation
from nas_core.strategies.stopping import Stopping
from nas_core.training.recipe import Recipe

Decay = Annotated[float, Field(ge=0, lt=1)]


class PartialChannels(Spec):
    """PC-DARTS (arXiv:1907.05737): only some channels of an edge pass through its operations."""

    divisor: int = Field(default=1, ge=1, description="1 / divisor of the channels pass through the operations (K)")
    edge_normalisation: bool = Field(
        default=False, description="whether each edge has a weight of its own, a softmax over the edges of its node"
    )


class GridPoint(Spec):
    """A run of its own; the fields that it gives take the place of the strategy's."""

    weight_decay: float | None = Field(
        default=None, ge=0, description="L2 penalty on convolution and linear weights; none: the strategy's"
    )
    regularisation: Regularisation | None = Field(default=None, description="random losses; none: the strategy's")


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
    alpha_learning_rate: float = Field(
        default=3e-4, gt=0, description="learning rate of Adam for the architecture weights"
    )
    alpha_betas: tuple[Decay, Decay] = Field(
        default=(0.5, 0.999),
        description="decay rates of Adam's two moments for the architecture weights, each in [0, 1)",
    )
    alpha_weight_decay: float = Field(default=1e-3, ge=0, description="L2 penalty on the architecture weights")
    alpha_gradient_clip: float | None = Field(
        default=None, gt=0, description="largest L2 norm of the gradient of all architecture weights; none: no limit"
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
        "none: never",
    )
    cost_weight: float = Field(
        default=0.0,
        ge=0,
        description="weight of the expected cost in the loss of alpha, as a share of its limit (of the dearest "
        "architecture without one); the cost is what search limits, by default multiply-accumulates",
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
