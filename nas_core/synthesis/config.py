"""The config section of synthesis: what all engines share; for their own see `nas_core.settings.synthesis`."""

from typing import TYPE_CHECKING, Annotated

from pydantic import Field, model_validator

from nas_core.registry import Spec
from nas_core.settings.synthesis import GeneratorSpec, ImportedSpec, LabelCalibration, PixelSpec
from nas_core.settings.synthesis import engines as engines

if TYPE_CHECKING:
    EngineSpec = PixelSpec | GeneratorSpec | ImportedSpec
else:
    EngineSpec = engines.union()


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
        description="height and width of a canvas in pixels; null: 8/7 of the teacher's input, as in the paper",
    )
    classes: Annotated[tuple[int | str, ...], Field(min_length=1)] | None = Field(
        default=None, description="indices or names of the classes to make images of; null: all of the teacher's"
    )
    labels: LabelCalibration = Field(
        default_factory=LabelCalibration, description="targets of the later rounds; `paper`: as published"
    )
    engine: EngineSpec = Field(default_factory=PixelSpec, description="what makes the images, by name")

    @model_validator(mode="after")
    def _engine_can_start_so(self) -> "SynthesisConfig":
        if self.labels.start == "canvas" and not isinstance(self.engine, PixelSpec):
            raise ValueError(
                f"labels.start = canvas needs the engine 'pixels': '{self.engine.name}' optimises no canvas of the "
                "round before"
            )
        return self

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
