"""The config section of synthesis: what both engines share, and the pixel engine's own settings."""

from pydantic import Field, model_validator

from nas_core.registry import Spec


class LossWeights(Spec):
    """Weights of the synthesis loss; the defaults are those of Data-Free NAS (arXiv:2112.02086, public code).

    Every term is per image or batch-size free (see `nas_core/synthesis/losses.py`), so a weight means the same
    at every batch size.
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
    l2: float = Field(default=1e-5, ge=0, description="weight of the mean L2 norm of an image")


class PixelEngine(Spec):
    """Optimise the pixels of each canvas directly (Data-Free NAS; DeepInversion)."""

    iterations: int = Field(default=400, ge=1, description="optimisation steps per round")
    learning_rate: float = Field(default=0.1, gt=0, description="peak learning rate of Adam, in normalised pixel units")
    warmup: int = Field(default=40, ge=0, description="steps of linear warm-up before the cosine decay to zero")
    betas: tuple[float, float] = Field(
        default=(0.5, 0.9), description="Adam's decay rates of the two moments, each in [0, 1)"
    )
    losses: LossWeights = Field(default_factory=LossWeights, description="weights of the loss terms")

    @model_validator(mode="after")
    def _warmup_ends(self) -> "PixelEngine":
        if self.warmup >= self.iterations:
            raise ValueError(f"warmup = {self.warmup} must be smaller than iterations = {self.iterations}")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas = {self.betas} must each be at least 0 and below 1")
        return self


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
    label_temperature: float = Field(
        default=1.0,
        gt=0,
        description="temperature of the teacher's soft predictions that become the next round's targets",
    )
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
