"""The ShuffleNetV2 space of Single Path One-Shot: a row of blocks, each with three kernel sizes or an Xception branch.

Source: Guo et al., "Single Path One-Shot Neural Architecture Search with Uniform Sampling", arXiv:1904.00420, and its
reference code. There images have 224 pixels; `strides` makes the space fit smaller ones.
"""

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from nas_core.errors import InputError
from nas_core.ops.cost import Part
from nas_core.ops.mixed import MixedOperation
from nas_core.ops.primitives import conv_bn
from nas_core.ops.stochastic import Dropout
from nas_core.search_spaces.base import Architecture, Chosen, SearchSpace, Slot, Supernet, spaces
from nas_core.search_spaces.rows import BlockRow, Strides, check_strides, shrunk
from nas_core.search_spaces.scaling import ScalableSpec

OPERATIONS = ("shuffle_3x3", "shuffle_5x5", "shuffle_7x7", "xception")
STEM_CHANNELS, HEAD_CHANNELS = 16, 1024


@dataclass(frozen=True)
class Place:
    """Where a block sits.

    Attributes:
        in_channels: Channels of its input.
        out_channels: Channels of its output, even.
        stride: Step in pixels.
        input_shape: (channels, height, width) of its input.
    """

    in_channels: int
    out_channels: int
    stride: int
    input_shape: tuple[int, int, int]

    @property
    def splits(self) -> bool:
        """Whether half of the channels pass by untouched, instead of through a projection."""
        return self.stride == 1 and self.in_channels == self.out_channels


class Block(nn.Module):
    """A branch that computes and one that passes by, side by side.

    Where the shape stays, even channels pass by and odd ones are computed with, which shuffles them too. Elsewhere
    both branches see all channels, and the one that passes by is a depthwise and a 1 x 1 convolution.

    Args:
        operation: One of `OPERATIONS`.
        place: Where the block sits.
        affine: Whether BatchNorm learns a scale and a shift.
    """

    def __init__(self, operation: str, place: Place, affine: bool) -> None:
        super().__init__()
        xception = operation == "xception"
        kernel = 3 if xception else int(operation[-1])
        inside = place.in_channels // 2 if place.splits else place.in_channels
        middle, outside = place.out_channels // 2, place.out_channels - inside

        def depthwise(channels: int, stride: int = 1) -> nn.Module:
            return conv_bn(channels, channels, kernel, stride, groups=channels, affine=affine, activation=None)

        def pointwise(in_channels: int, out_channels: int) -> nn.Module:
            return conv_bn(in_channels, out_channels, affine=affine)

        if xception:
            layers = [depthwise(inside, place.stride), pointwise(inside, middle)]
            layers += [depthwise(middle), pointwise(middle, middle), depthwise(middle), pointwise(middle, outside)]
        else:
            layers = [pointwise(inside, middle), depthwise(middle, place.stride), pointwise(middle, outside)]
        self.main = nn.Sequential(*layers)
        passing = [] if place.splits else [depthwise(inside, place.stride), pointwise(inside, inside)]
        self.passing = nn.Sequential(*passing)
        self.splits = place.splits

    def forward(
        self, x: Float[Tensor, "batch in_channels height width"]
    ) -> Float[Tensor, "batch out_channels out_height out_width"]:
        """The passing branch's channels, then the computed ones."""
        beside, inside = (x[:, ::2], x[:, 1::2]) if self.splits else (x, x)
        return torch.cat([self.passing(beside), self.main(inside)], dim=1)


class ShuffleNetSupernet(BlockRow, Supernet):
    """The macro network with every allowed operation in every block; called with one gate per block."""


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


@spaces.register(ShuffleNetSpec)
class ShuffleNet(SearchSpace):
    """The space of ShuffleNetV2 blocks.

    Args:
        stage_blocks: Blocks of each stage.
        stage_channels: Channels of each stage, even; more than in the stage before.
        strides: Step of the stem and of each stage.
        dropout: Rate of dropped features before the classifier.
        input_shape: (channels, height, width) of the images.
        num_classes: Number of logits.

    Raises:
        InputError: If the lists differ in length, a size is not positive, or the images are smaller than the strides.
    """

    name: ClassVar[str] = "shufflenet"

    def __init__(
        self,
        stage_blocks: Sequence[int] = (4, 4, 8, 4),
        stage_channels: Sequence[int] = (64, 160, 320, 640),
        strides: Sequence[int] = (2, 2, 2, 2, 2),
        dropout: float = 0.1,
        *,
        input_shape: tuple[int, int, int],
        num_classes: int,
    ) -> None:
        self.check_sizes(num_classes=num_classes, input_shape=min(input_shape))
        if not len(stage_blocks) == len(stage_channels) == len(strides) - 1:
            raise InputError(
                "search space 'shufflenet': stage_blocks and stage_channels must have one number per stage and "
                f"strides one more, for the stem; they have {len(stage_blocks)}, {len(stage_channels)}, {len(strides)}"
            )
        for before, after in itertools.pairwise((STEM_CHANNELS, *stage_channels)):
            if after % 2 or after <= before:
                raise InputError(
                    f"search space 'shufflenet': stage_channels must be even and grow from {STEM_CHANNELS}; "
                    f"{after} after {before} does not"
                )
        check_strides(self.name, input_shape, strides)
        self.stage_blocks, self.stage_channels = tuple(stage_blocks), tuple(stage_channels)
        self.strides, self.dropout = tuple(strides), dropout
        self.input_shape, self.num_classes = input_shape, num_classes
        self.slots = tuple(Slot(f"block {index}", OPERATIONS) for index in range(sum(stage_blocks)))

    def supernet(self, *, partial: int = 1) -> ShuffleNetSupernet:
        """A supernet, whose BatchNorm layers have no scale and shift."""
        self.check_partial(partial)
        return ShuffleNetSupernet(
            self._stem(affine=False),
            [
                MixedOperation([Block(name, place, affine=False) for name in slot.operations])
                for slot, place in zip(self.slots, self._places(), strict=True)
            ],
            self._head(affine=False),
        )

    def network(self, architecture: Architecture) -> BlockRow:
        """The stand-alone network."""
        chosen = zip(architecture.operations, self._places(), strict=True)
        blocks = [Block(str(name), place, affine=True) for name, place in chosen]
        return BlockRow(self._stem(affine=True), blocks, self._head(affine=True))

    def notation(self, operations: Sequence[Chosen]) -> str:
        """The reference code's list of indices into `OPERATIONS`, such as "2,1,0"."""
        return ",".join(str(OPERATIONS.index(str(name))) for name in operations)

    def parse(self, notation: str) -> Architecture:
        """Read a list of indices; brackets and spaces do not matter."""
        numbers = re.fullmatch(r"\s*\[?([0-3\s,]*)\]?\s*", notation)
        found = re.findall(r"[0-3]", numbers[1]) if numbers else []
        if not numbers or ",".join(found) != re.sub(r"\s", "", numbers[1]) or len(found) != len(self.slots):
            raise InputError(
                f"'{notation[:200]}' is no architecture of shufflenet; write {len(self.slots)} numbers from 0 to 3, "
                "such as 2,1,0,..."
            )
        return self.architecture(self.indices([OPERATIONS[int(number)] for number in found]))

    def parts(self) -> tuple[Sequence[Part], Sequence[Sequence[Sequence[Part]]]]:
        """Stem, head and blocks."""
        *_, last = self._places()
        head = (last.out_channels, *shrunk(last.input_shape[1:], last.stride))
        fixed = [
            Part("stem", lambda: self._stem(affine=True), self.input_shape),
            Part("head", lambda: self._head(affine=True), head),
        ]
        return fixed, [
            [[self._part(name, place)] for name in slot.operations]
            for slot, place in zip(self.slots, self._places(), strict=True)
        ]

    def _part(self, name: str, place: Place) -> Part:
        kind = f"{name} to {place.out_channels} stride {place.stride}"
        return Part(kind, lambda: Block(name, place, affine=True), place.input_shape)

    def _places(self) -> Iterator[Place]:
        """Where each block sits, from the first to the last."""
        channels, side = STEM_CHANNELS, shrunk(self.input_shape[1:], self.strides[0])
        for blocks, width, stride in zip(self.stage_blocks, self.stage_channels, self.strides[1:], strict=True):
            for position in range(blocks):
                place = Place(channels, width, stride if position == 0 else 1, (channels, *side))
                yield place
                channels, side = width, shrunk(side, place.stride)

    def _stem(self, affine: bool) -> nn.Module:
        return conv_bn(self.input_shape[0], STEM_CHANNELS, 3, self.strides[0], affine=affine)

    def _head(self, affine: bool) -> nn.Module:
        return nn.Sequential(
            conv_bn(self.stage_channels[-1], HEAD_CHANNELS, affine=affine),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            Dropout(self.dropout),
            nn.Linear(HEAD_CHANNELS, self.num_classes, bias=False),
        )
