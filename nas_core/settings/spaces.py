"""The settings of the search spaces."""

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, get_args

from pydantic import Field, ValidationError, field_validator

from nas_core.errors import InputError
from nas_core.registry import Registry, Spec

if TYPE_CHECKING:
    from nas_core.search_spaces.base import SearchSpace

spaces: "Registry[SearchSpace]" = Registry("search space", builders="nas_core.search_spaces")

Stem = Literal["cifar", "imagenet"]
Subspace = Literal["none", "s1", "s2", "s3", "s4"]
Strides = tuple[Literal[1, 2], ...]
OperationName = Literal["none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3"]
NASBENCH201_OPERATIONS: tuple[OperationName, ...] = get_args(OperationName)


class ScalableSpec(Spec):
    """Base of the spaces' settings; says which of them make a found network wide and deep.

    Attributes:
        width_field: The field that holds the network's channels: a number, or one per stage.
        depth_field: The field that holds its number of cells; None for a space in which each block is a choice of its
            own, so that there is nothing to repeat.
    """

    width_field: ClassVar[str]
    depth_field: ClassVar[str | None] = None

    def scaled(self, width: float, cells: int | None) -> "ScalableSpec":
        """The settings with other sizes of the found network.

        Args:
            width: Factor on its channels; they are rounded to even numbers.
            cells: Its cells, counted as in `depth_field`; None: as they are.

        Raises:
            InputError: If the space has no cells to repeat, or does not take the sizes.
        """
        values = self.model_dump()
        name = values["name"]
        if cells is not None:
            if self.depth_field is None:
                raise InputError(
                    f"retrain.cells = {cells} has no meaning in search space '{name}', where every block is a choice "
                    "of its own; leave it out, and set retrain.width"
                )
            values[self.depth_field] = cells
        if width != 1:
            channels = values[self.width_field]
            wider = [
                max(2, 2 * round(c * width / 2)) for c in (channels if isinstance(channels, tuple) else [channels])
            ]
            values[self.width_field] = tuple(wider) if isinstance(channels, tuple) else wider[0]
        try:
            return type(self).model_validate(values)
        except ValidationError as error:
            detail = error.errors()[0]
            raise InputError(
                f"retrain.width = {width} or retrain.cells = {cells} does not fit search space '{name}': "
                f"{'.'.join(map(str, detail['loc']))} would be {detail['input']!r}; {detail['msg'].lower()}"
            ) from error


@spaces.declare
class DartsSpaceSpec(ScalableSpec):
    """DARTS cells: a normal and a reduction cell of four nodes, two edges into each, eight operations."""

    width_field: ClassVar[str] = "network_channels"
    depth_field: ClassVar[str | None] = "network_cells"
    name: Literal["darts"] = "darts"
    subspace: Subspace = Field(
        default="none", description="restriction of Zela et al. 2020 (s1, s2, s3 or s4), or none for all of DARTS"
    )
    channels: int = Field(default=16, ge=2, le=512, description="channels of a node in the supernet's first cells")
    cells: int = Field(
        default=8, ge=3, le=50, description="cells of the supernet; of fewer than three all would be reduction cells"
    )
    network_channels: int = Field(
        default=36, ge=2, le=512, description="channels of a node in the network's first cells"
    )
    network_cells: int = Field(
        default=20, ge=3, le=50, description="cells of the stand-alone network; at least three, as of the supernet"
    )
    stem: Stem = Field(default="cifar", description="cifar keeps the images' size; imagenet takes an eighth of it")


@spaces.declare
class NasBench1Shot1Spec(ScalableSpec):
    """NAS-Bench-1Shot1: cells of NAS-Bench-101 with a fixed number of inputs per block, in three variants."""

    width_field: ClassVar[str] = "network_channels"
    depth_field: ClassVar[str | None] = "cells"
    name: Literal["nasbench1shot1"] = "nasbench1shot1"
    space: Literal["s1", "s2", "s3"] = Field(default="s1", description="which of the three spaces: s1, s2 or s3")
    channels: int = Field(
        default=16, ge=1, le=512, description="channels of a block in the supernet's first stack; they double twice"
    )
    network_channels: int = Field(
        default=64, ge=1, le=512, description="channels of a block in the network's first stack; they double twice"
    )
    cells: int = Field(default=3, ge=1, le=50, description="cells per stack")
    loose_ends: bool = Field(
        default=True,
        description="whether architectures may hold blocks that the output does not depend on, as in the benchmark",
    )


@spaces.declare
class NasBench201Spec(ScalableSpec):
    """NAS-Bench-201's cell space: 5 operations on 6 edges of one cell, repeated in 3 stages."""

    width_field: ClassVar[str] = "channels"
    depth_field: ClassVar[str | None] = "cells"
    name: Literal["nasbench201"] = "nasbench201"
    channels: int = Field(
        default=16, ge=1, le=512, description="channels of the first of three stages; they double twice"
    )
    cells: int = Field(default=5, ge=1, le=50, description="cells per stage")
    operations: tuple[OperationName, ...] = Field(
        default=NASBENCH201_OPERATIONS, min_length=1, description="operations that any edge may choose from"
    )


@spaces.declare
class ProxylessSpaceSpec(ScalableSpec):
    """ProxylessNAS' MobileNetV2 blocks: six convolutions, or none where the shape stays, in each of 21 blocks."""

    width_field: ClassVar[str] = "stage_channels"
    name: Literal["proxyless"] = "proxyless"
    stage_blocks: tuple[Annotated[int, Field(ge=1, le=32)], ...] = Field(
        default=(4, 4, 4, 4, 4, 1), min_length=1, max_length=10, description="blocks of each stage"
    )
    stage_channels: tuple[Annotated[int, Field(ge=1, le=4096)], ...] = Field(
        default=(24, 40, 80, 96, 192, 320), min_length=1, max_length=10, description="channels of each stage"
    )
    strides: Strides = Field(
        default=(2, 2, 2, 2, 1, 2, 1),
        min_length=2,
        max_length=11,
        description="step in pixels of the stem and of each stage's first block: 2 halves the map. For images of "
        "32 pixels 1, 1, 2, 2, 1, 2, 1",
    )


@spaces.declare
class ShuffleNetSpec(ScalableSpec):
    """Single Path One-Shot's ShuffleNetV2 blocks: a choice of four in each of 20 blocks."""

    width_field: ClassVar[str] = "stage_channels"
    name: Literal["shufflenet"] = "shufflenet"
    stage_blocks: tuple[Annotated[int, Field(ge=1, le=32)], ...] = Field(
        default=(4, 4, 8, 4), min_length=1, max_length=8, description="blocks of each stage"
    )
    stage_channels: tuple[Annotated[int, Field(ge=18, le=4096, multiple_of=2)], ...] = Field(
        default=(64, 160, 320, 640),
        min_length=1,
        max_length=8,
        description="channels of each stage, even and growing",
    )
    strides: Strides = Field(
        default=(2, 2, 2, 2, 2),
        min_length=2,
        max_length=9,
        description="step in pixels of the stem and of each stage's first block: 2 halves the map. For images of "
        "32 pixels 1, 1, 2, 2, 2",
    )
    dropout: float = Field(default=0.1, ge=0, lt=1, description="rate of dropped features before the classifier")
    channel_factors: tuple[Annotated[float, Field(gt=0, le=4)], ...] = Field(
        default=(1.0,),
        min_length=1,
        max_length=16,
        description="factors on the inner channels of a block to choose from, growing; one alone: no channel search. "
        "Published are 0.2, 0.4, 0.5, 0.6, 0.8, 1, 1.2, 1.4, 1.5, 1.6",
    )

    @field_validator("channel_factors")
    @classmethod
    def _factors_grow(cls, factors: tuple[float, ...]) -> tuple[float, ...]:
        if list(factors) != sorted({round(factor, 3) for factor in factors}):
            raise ValueError("channel_factors must grow and have three decimals at most, such as [0.5, 1, 1.5]")
        return factors
