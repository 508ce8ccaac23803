"""The config section of synthesis: what both engines share, and the pixel engine's own settings."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from nas_core.precision import Precision
from nas_core.registry import Spec


class LossWeights(Spec):
    """Weights of the synthesis loss; the defaults are those of Data-Free NAS (arXiv:2112.02086, public code).

    Every term is per image or batch-size free (see `nas_core/synthesis/losses.py`), so a weight means the same
    at every batch size. From the public codes' weights: multiply that of TV-L2 by the square root of their batch
    size (1e-4 at a batch of 50 is 7.1e-4 here), and take all others as they are.
    """

    classification: float = Field(
        default=1.0, ge=0, description="weight of the cross-entropy between targets and teacher"
    )
    batch_norm: float = Field(
        default=0.01, ge=0, description="weight of the distance to the teacher's BatchNorm statistics"
    )
    first_batch_norm: float = Field(default=10.0, ge=0, description="factor on the first BatchNorm layer's distance")
    total_variation: float = Field(
        default=7.1e-4,
        ge=0,
        description="weight of TV-L2, root mean square over the batch (the paper's 1e-4 at its batch of 50)",
    )
    total_variation_l1: float = Field(default=0.0, ge=0, description="weight of TV-L1, the mean absolute difference")
    l2: float = Field(default=1e-5, ge=0, description="weight of the mean L2 norm of an image")

    @model_validator(mode="after")
    def _some_loss(self) -> "LossWeights":
        if not any(value for name, value in self if name != "first_batch_norm"):
            raise ValueError("all weights are zero, so nothing would be optimised; give one of them a weight")
        return self


class PixelStage(Spec):
    """A stretch of optimisation at one resolution, with an optimiser and a schedule of its own."""

    divisor: int = Field(
        default=1, ge=1, description="the teacher sees the canvas averaged over squares of this many pixels a side"
    )
    iterations: int = Field(default=400, ge=1, description="optimisation steps")


class PixelEngine(Spec):
    """Optimise the pixels of each canvas directly (Data-Free NAS; DeepInversion)."""

    stages: Annotated[tuple[PixelStage, ...], Field(min_length=1)] = Field(
        default=(PixelStage(),), description="stages of every round, coarse to fine; the last one has divisor 1"
    )
    min_scale: float = Field(
        default=1.0,
        gt=0,
        le=1,
        description="smallest area of a step's window as a share of the teacher's input, to which it is resized; "
        "1: windows of exactly the input's size (SRe2L: 0.08, on a canvas of the input's size)",
    )
    learning_rate: float = Field(default=0.1, gt=0, description="peak learning rate of Adam, in normalised pixel units")
    warmup: int = Field(
        default=40, ge=0, description="steps of linear warm-up of each stage before the cosine decay to zero"
    )
    betas: tuple[float, float] = Field(
        default=(0.5, 0.9), description="Adam's decay rates of the two moments, each in [0, 1)"
    )
    losses: LossWeights = Field(default_factory=LossWeights, description="weights of the loss terms")
    precision: Precision = Field(
        default="auto",
        description="arithmetic of the teacher; auto: bfloat16 where the device has it in hardware, else float32",
    )

    @model_validator(mode="after")
    def _fits_together(self) -> "PixelEngine":
        shortest = min(stage.iterations for stage in self.stages)
        if self.warmup >= shortest:
            raise ValueError(f"warmup = {self.warmup} must be smaller than the iterations of every stage ({shortest})")
        if self.stages[-1].divisor != 1:
            raise ValueError("the last of the stages must have divisor 1, because images are stored at full resolution")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas = {self.betas} must each be at least 0 and below 1")
        return self


class LabelCalibration(Spec):
    """How a round's images make the targets of the next: recursive label calibration.

    The paper's: temperature 1, windows 1, start noise. At temperature 1 the labels of well-fitted images are almost
    one-hot (docs/results/label-calibration.md).
    """

    temperature: float = Field(
        default=4.0,
        gt=0,
        description="temperature of the teacher's soft predictions, as targets and where they are compared with them; "
        "4 suits about ten classes, 1 a thousand",
    )
    windows: int = Field(
        default=8,
        ge=1,
        description="1: predictions on the last window that the optimiser used; more: their mean over as many new "
        "random windows of the finished canvas",
    )
    start: Literal["noise", "canvas"] = Field(
        default="noise", description="what a round after the first starts from: new noise, or its previous canvases"
    )


class SynthesisConfig(Spec):
    """Recovery of training images from the teacher: rounds x shards x batch_size canvases."""

    shards: int = Field(
        default=4, ge=1, le=1_000_000, description="batches of canvases per round; each is made by itself"
    )
    batch_size: int = Field(default=64, ge=2, description="canvases per shard, optimised together")
    rounds: int = Field(
        default=2, ge=1, le=100, description="rounds of recursive label calibration; round 0 has one-hot targets"
    )
    canvas: tuple[int, int] | None = Field(
        default=None,
        description="height and width of a canvas in pixels; none: 8/7 of the teacher's input, as in the paper",
    )
    classes: Annotated[tuple[int | str, ...], Field(min_length=1)] | None = Field(
        default=None, description="indices or names of the classes to make images of; none: all of the teacher's"
    )
    labels: LabelCalibration = Field(default_factory=LabelCalibration, description="targets of the later rounds")
    pixels: PixelEngine = Field(default_factory=PixelEngine, description="settings of the pixel engine")

    @property
    def images(self) -> int:
        """Canvases of the whole run."""
        return self.rounds * self.shards * self.batch_size

    def canvas_size(self, input_shape: tuple[int, int, int]) -> tuple[int, int]:
        """Height and width of a canvas for a teacher's input shape.

        The default is 8/7 of the input (256 for 224), and at least two pixels more.
        """
        if self.canvas is not None:
            return self.canvas
        height, width = (max(side + 2, round(side * 8 / 7)) for side in input_shape[1:])
        return height, width
