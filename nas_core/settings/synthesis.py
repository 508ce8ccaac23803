"""The settings of synthesis: losses, labels, and the engines that make the images."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from nas_core.registry import Registry, Spec
from nas_core.settings.precision import Precision

if TYPE_CHECKING:
    from nas_core.synthesis.engine import SynthesisEngine

engines: "Registry[SynthesisEngine]" = Registry("synthesis engine", builders="nas_core.synthesis.build")


Compile = Annotated[
    bool,
    Field(
        description="run teacher and losses as compiled code (torch.compile; on CUDA also as CUDA graphs): needs a "
        "compiler, and the first step of a process takes up to a minute"
    ),
]


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
    relative_batch_norm: float = Field(
        default=0.0,
        ge=0,
        description="weight of the same distance as a share of the statistics' own size, which means the same for "
        "every teacher: that of one network can be ten times that of another",
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


class LabelCalibration(Spec):
    """How a round's images make the targets of the next: recursive label calibration.

    The preset "paper" stands for the paper's: temperature 1, windows 1, start noise. At temperature 1 the labels of
    well-fitted images are almost one-hot (docs/results/label-calibration.md).
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
        description="1: predictions on the last window of which the loss was taken; more: their mean over as many new "
        "random windows of the finished canvas",
    )
    start: Literal["noise", "canvas"] = Field(
        default="noise",
        description="what a round after the first starts from: new noise, or its previous canvases (pixels alone)",
    )

    @model_validator(mode="before")
    @classmethod
    def _preset(cls, given: Any) -> Any:
        if given == "paper":
            return {"temperature": 1.0, "windows": 1, "start": "noise"}
        if isinstance(given, str):
            raise ValueError(f"'{given}' is no preset; give 'paper', or the fields")
        return given


class PixelStage(Spec):
    """A stretch of optimisation at one resolution; optimiser and schedule start afresh with it, as in the paper."""

    divisor: int = Field(
        default=1, ge=1, description="the teacher sees the canvas averaged over squares of this many pixels a side"
    )
    iterations: int = Field(default=400, ge=1, description="optimisation steps")


def _check_betas(betas: tuple[float, float]) -> None:
    if not all(0 <= beta < 1 for beta in betas):
        raise ValueError(f"betas = {betas} must each be at least 0 and below 1")


@engines.declare
class PixelSpec(Spec):
    """Optimise the pixels of each canvas directly (Data-Free NAS; DeepInversion)."""

    name: Literal["pixels"] = "pixels"
    learns: ClassVar[bool] = False
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
    compile: Compile = False

    @model_validator(mode="after")
    def _fits_together(self) -> "PixelSpec":
        shortest = min(stage.iterations for stage in self.stages)
        if self.warmup >= shortest:
            raise ValueError(f"warmup = {self.warmup} must be smaller than the iterations of every stage ({shortest})")
        if self.stages[-1].divisor != 1:
            raise ValueError("the last of the stages must have divisor 1, because images are stored at full resolution")
        _check_betas(self.betas)
        return self


# The generator's defaults where they are others than the pixel engine's.
GENERATOR_LOSSES = {
    "batch_norm": 0.0,
    "relative_batch_norm": 1500.0,
    "first_batch_norm": 1.0,
    "total_variation": 0.0,
    "l2": 0.0,
}
REFINEMENT = {"stages": [{"iterations": 20}], "warmup": 2, "learning_rate": 0.02}


@engines.declare
class GeneratorSpec(Spec):
    """Learn a class-conditional generator once, then draw every shard with it (after FastDFKD and NAYER)."""

    name: Literal["generator"] = "generator"
    steps: int = Field(
        default=500,
        ge=1,
        description="steps of learning, each on a new batch of batch_size images (one fewer if that is odd)",
    )
    snapshots: int = Field(
        default=16,
        ge=1,
        description="copies of the generator kept at equal distances after the first tenth of learning; each shard is "
        "drawn by one of them, at random: what it drew on the way is more diverse than what it draws at the end",
    )
    adaptation: int = Field(
        default=10,
        ge=0,
        description="steps by which a shard adapts its copy of the generator, whose first layer starts from fresh "
        "weights of the shard's own, and its latent vectors; 0: it draws with the copy as it is",
    )
    latent: int = Field(default=256, ge=1, le=65536, description="length of a latent vector")
    width: int = Field(default=64, ge=2, le=4096, description="channels of the generator at half resolution")
    learning_rate: float = Field(default=5e-3, gt=0, description="peak learning rate of Adam for the generator")
    latent_learning_rate: float = Field(
        default=1e-2, gt=0, description="learning rate of Adam for the latent vectors of a shard"
    )
    warmup: int = Field(
        default=20, ge=0, description="steps of linear warm-up before the cosine decay to zero; fewer than steps"
    )
    betas: tuple[float, float] = Field(
        default=(0.5, 0.999), description="Adam's decay rates of the two moments, each in [0, 1)"
    )
    memory: float = Field(
        default=0.9, ge=0, lt=1, description="share of earlier batches in the BatchNorm statistics that are matched"
    )
    diversity: float = Field(
        default=15.0, ge=0, description="weight of the mode-seeking loss: images of one class must differ"
    )
    losses: LossWeights = Field(
        default_factory=lambda: LossWeights(**GENERATOR_LOSSES), description="weights of the loss terms"
    )
    precision: Precision = Field(
        default="auto",
        description="arithmetic of teacher and generator; auto: bfloat16 where the device has it in hardware, else "
        "float32",
    )
    compile: Compile = False
    refinement: PixelSpec | None = Field(
        default=None,
        description="pixel engine that goes on from the drawn canvases; {}: 20 steps at a learning rate of 0.02, by "
        "the losses that are the generator's defaults; null: they stay as drawn",
    )
    learns: ClassVar[bool] = True

    @field_validator("losses", mode="before")
    @classmethod
    def _beside_its_own_defaults(cls, given: Any) -> Any:
        return GENERATOR_LOSSES | given if isinstance(given, dict) else given

    @field_validator("refinement", mode="before")
    @classmethod
    def _short_and_gentle(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        return REFINEMENT | given | {"losses": cls._beside_its_own_defaults(given.get("losses", {}))}

    @model_validator(mode="after")
    def _fits_together(self) -> "GeneratorSpec":
        if self.warmup >= self.steps:
            raise ValueError(f"warmup = {self.warmup} must be smaller than steps = {self.steps}")
        if self.snapshots > max(1, self.steps // 2):
            raise ValueError(f"snapshots = {self.snapshots} must be at most half of steps = {self.steps}")
        _check_betas(self.betas)
        return self


@engines.declare
class ImportedSpec(Spec):
    """Take the images of a folder instead of making any; `dfnas import-dataset` writes this section."""

    name: Literal["imported"] = "imported"
    learns: ClassVar[bool] = False
    path: Path = Field(description="the folder: an export of dfnas, or a folder of images per class")
    listing: str = Field(description="digest of what it holds by name, so that another folder is not taken for it")
