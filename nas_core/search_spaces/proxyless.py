"""The MobileNetV2 space of ProxylessNAS: a row of inverted residual blocks with a choice of expansion and kernel.

Source: Cai, Zhu and Han, "ProxylessNAS", arXiv:1812.00332, and its reference code. A block whose shape stays has a
shortcut, and may be left out by choosing Zero. Images had 224 pixels there; `strides` makes the space fit smaller ones.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from nas_core.errors import InputError
from nas_core.ops.cost import Part
from nas_core.ops.mixed import MixedOperation
from nas_core.ops.primitives import Zero, conv_bn
from nas_core.search_spaces.base import Architecture, Chosen, SearchSpace, Slot, Supernet
from nas_core.search_spaces.rows import BlockRow, check_strides, shrunk
from nas_core.settings.spaces import ProxylessSpaceSpec, spaces

# The reference code's names: kernel, then expansion.
CONVOLUTIONS = tuple(f"{kernel}x{kernel}_MBConv{expansion}" for kernel in (3, 5, 7) for expansion in (3, 6))
ZERO = "Zero"
STEM_CHANNELS, FIRST_CHANNELS, HEAD_CHANNELS = 32, 16, 1280


@dataclass(frozen=True)
class Place:
    """Where a block sits.

    Attributes:
        out_channels: Channels of its output.
        stride: Step in pixels.
        input_shape: (channels, height, width) of its input.
    """

    out_channels: int
    stride: int
    input_shape: tuple[int, int, int]

    @property
    def shortcut(self) -> bool:
        """Whether the block adds to its input, so that it can be left out."""
        return self.stride == 1 and self.input_shape[0] == self.out_channels


def convolution(
    in_channels: int,
    out_channels: int,
    kernel_size: int = 1,
    stride: int = 1,
    groups: int = 1,
    activation: type[nn.Module] | None = nn.ReLU6,
) -> nn.Sequential:
    """Convolution, BatchNorm with the reference code's epsilon, ReLU6."""
    return conv_bn(in_channels, out_channels, kernel_size, stride, groups, activation=activation, eps=1e-3)


def inverted(in_channels: int, out_channels: int, kernel_size: int, stride: int, expansion: int) -> nn.Sequential:
    """Expand by a 1 x 1 convolution (unless the expansion is 1), convolve depthwise, project."""
    middle = expansion * in_channels
    return nn.Sequential(
        *([convolution(in_channels, middle)] if expansion > 1 else []),
        convolution(middle, middle, kernel_size, stride, groups=middle),
        convolution(middle, out_channels, activation=None),
    )


def block_operation(name: str, place: Place) -> nn.Module:
    """An operation of a block, without the shortcut.

    Args:
        name: One of `CONVOLUTIONS`, such as "5x5_MBConv3", or "Zero".
        place: Where the block sits.
    """
    if name == ZERO:
        return Zero()
    return inverted(place.input_shape[0], place.out_channels, int(name[0]), place.stride, int(name[-1]))


class Block(nn.Module):
    """An operation and the shortcut around it, if there is one.

    Args:
        operation: An operation, or a `MixedOperation` to be called with a gate.
        shortcut: Whether the input is added.
    """

    def __init__(self, operation: nn.Module, shortcut: bool) -> None:
        super().__init__()
        self.operation, self.shortcut = operation, shortcut

    def forward(
        self, x: Float[Tensor, "batch in_channels height width"], *gate: object
    ) -> Float[Tensor, "batch out_channels out_height out_width"]:
        """The operation's output, plus `x` with a shortcut."""
        out = self.operation(x, *gate)
        return x + out if self.shortcut else out


class ProxylessSupernet(BlockRow, Supernet):
    """The macro network with every allowed operation in every block; called with one gate per block."""


@spaces.register(ProxylessSpaceSpec)
class ProxylessSpace(SearchSpace):
    """The space of inverted residual blocks.

    Args:
        stage_blocks: Blocks of each stage.
        stage_channels: Channels of each stage.
        strides: Step of the stem and of each stage.
        input_shape: (channels, height, width) of the images.
        num_classes: Number of logits.

    Raises:
        InputError: If the lists differ in length, a size is not positive, or the images are smaller than the strides.
    """

    name: ClassVar[str] = "proxyless"

    def __init__(
        self,
        stage_blocks: Sequence[int] = (4, 4, 4, 4, 4, 1),
        stage_channels: Sequence[int] = (24, 40, 80, 96, 192, 320),
        strides: Sequence[int] = (2, 2, 2, 2, 1, 2, 1),
        *,
        input_shape: tuple[int, int, int],
        num_classes: int,
    ) -> None:
        self.check_sizes(
            num_classes=num_classes,
            input_shape=min(input_shape),
            stage_channels=min(stage_channels, default=0),
            stage_blocks=min(stage_blocks, default=0),
        )
        if not len(stage_blocks) == len(stage_channels) == len(strides) - 1:
            raise InputError(
                "search space 'proxyless': stage_blocks and stage_channels must have one number per stage and strides "
                f"one more, for the stem; they have {len(stage_blocks)}, {len(stage_channels)} and {len(strides)}"
            )
        check_strides(self.name, input_shape, strides)
        self.stage_blocks, self.stage_channels, self.strides = (
            tuple(stage_blocks),
            tuple(stage_channels),
            tuple(strides),
        )
        self.input_shape, self.num_classes = input_shape, num_classes
        self.slots = tuple(
            Slot(f"block {index}", (*CONVOLUTIONS, ZERO) if place.shortcut else CONVOLUTIONS)
            for index, place in enumerate(self._places())
        )

    def supernet(self, *, partial: int = 1) -> ProxylessSupernet:
        """A supernet; like the reference code's, its BatchNorm layers have scale and shift."""
        self.check_partial(partial)
        blocks = [
            Block(MixedOperation([block_operation(name, place) for name in slot.operations]), place.shortcut)
            for slot, place in zip(self.slots, self._places(), strict=True)
        ]
        return ProxylessSupernet(self._stem(), blocks, self._head())

    def network(self, architecture: Architecture) -> BlockRow:
        """The stand-alone network; a block of Zero is not in it."""
        blocks = [
            Block(block_operation(str(name), place), place.shortcut)
            for name, place in zip(architecture.operations, self._places(), strict=True)
            if name != ZERO
        ]
        return BlockRow(self._stem(), blocks, self._head())

    def notation(self, operations: Sequence[Chosen]) -> str:
        """The reference code's names of the blocks, with commas between them."""
        return ",".join(map(str, operations))

    def parse(self, notation: str) -> Architecture:
        """Read the blocks' names."""
        names = [name.strip() for name in notation.split(",")]
        if len(names) != len(self.slots):
            raise InputError(
                f"'{notation[:200]}' is no architecture of proxyless; write {len(self.slots)} blocks, such as "
                "3x3_MBConv3,5x5_MBConv6,Zero,..."
            )
        return self.architecture(self.indices(names))

    def parts(self) -> tuple[Sequence[Part], Sequence[Sequence[Sequence[Part]]]]:
        """Stem, head and blocks; nothing for Zero."""
        *_, last = self._places()
        fixed = [
            Part(f"stem stride {self.strides[0]}", self._stem, self.input_shape),
            Part(
                f"head of {self.num_classes} classes",
                self._head,
                (last.out_channels, *shrunk(last.input_shape[1:], last.stride)),
            ),
        ]
        return fixed, [
            [self._parts(name, place) for name in slot.operations]
            for slot, place in zip(self.slots, self._places(), strict=True)
        ]

    def _parts(self, name: str, place: Place) -> list[Part]:
        kind = f"{name} to {place.out_channels} stride {place.stride} shortcut {int(place.shortcut)}"
        make = Part(kind, lambda: Block(block_operation(name, place), place.shortcut), place.input_shape)
        return [] if name == ZERO else [make]

    def _places(self) -> Iterator[Place]:
        """Where each block sits, from the first to the last."""
        channels, side = FIRST_CHANNELS, shrunk((self.input_shape[1], self.input_shape[2]), self.strides[0])
        for blocks, width, stride in zip(self.stage_blocks, self.stage_channels, self.strides[1:], strict=True):
            for position in range(blocks):
                place = Place(width, stride if position == 0 else 1, (channels, *side))
                yield place
                channels, side = width, shrunk(side, place.stride)

    def _stem(self) -> nn.Module:
        return nn.Sequential(
            convolution(self.input_shape[0], STEM_CHANNELS, 3, self.strides[0]),
            inverted(STEM_CHANNELS, FIRST_CHANNELS, 3, stride=1, expansion=1),
        )

    def _head(self) -> nn.Module:
        return nn.Sequential(
            convolution(self.stage_channels[-1], HEAD_CHANNELS),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(HEAD_CHANNELS, self.num_classes),
        )
