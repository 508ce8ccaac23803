"""Blocks of the ShuffleNetV2 space, and blocks of several widths that share their weights.

Source: Guo et al., "Single Path One-Shot Neural Architecture Search with Uniform Sampling", arXiv:1904.00420, and its
reference code; the weights that widths share: "channel number search" there.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from nas_core.ops.batch_norm import unscaled_batch_norm
from nas_core.ops.primitives import conv_bn

KINDS = ("shuffle_3x3", "shuffle_5x5", "shuffle_7x7", "xception")


@dataclass(frozen=True)
class Operation:
    """What a block computes: written "shuffle_3x3", or "shuffle_3x3*0.6" with other than the usual inner channels.

    Attributes:
        kind: One of `KINDS`.
        factor: On the inner channels, of which 1 means half of the block's output.
    """

    kind: str
    factor: float = 1.0

    @classmethod
    def parse(cls, name: str) -> "Operation":
        """Read a name."""
        kind, _, factor = name.partition("*")
        return cls(kind, float(factor or 1))

    def __str__(self) -> str:
        """The name."""
        return self.kind if self.factor == 1 else f"{self.kind}*{self.factor:g}"

    def middle(self, out_channels: int) -> int:
        """Inner channels of a block with so many output channels, rounded down as in the published codes."""
        # What is added lets a product that is whole but for the factor's representation stay whole.
        return math.floor(out_channels // 2 * self.factor + 1e-6)


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
        operation: What the branch computes.
        place: Where the block sits.
        affine: Whether BatchNorm learns a scale and a shift.
    """

    def __init__(self, operation: Operation, place: Place, affine: bool) -> None:
        super().__init__()
        xception = operation.kind == "xception"
        kernel = 3 if xception else int(operation.kind[-1])
        inside = place.in_channels // 2 if place.splits else place.in_channels
        middle, outside = operation.middle(place.out_channels), place.out_channels - inside
        # Channels after each layer, and the stride of the depthwise ones, which keep them.
        if xception:
            widths, strides = (inside, middle, middle, middle, middle, outside), (place.stride, 0, 1, 0, 1, 0)
        else:
            widths, strides = (middle, middle, outside), (0, place.stride, 0)
        before = (inside, *widths[:-1])
        self.main = nn.Sequential(
            *(
                depthwise(channels, kernel, stride, affine) if stride else conv_bn(channels, after, affine=affine)
                for channels, after, stride in zip(before, widths, strides, strict=True)
            )
        )
        passing = [depthwise(inside, kernel, place.stride, affine), conv_bn(inside, inside, affine=affine)]
        self.passing = nn.Sequential(*([] if place.splits else passing))
        self.splits = place.splits

    def forward(
        self, x: Float[Tensor, "batch in_channels height width"], middle: int | None = None
    ) -> Float[Tensor, "batch out_channels out_height out_width"]:
        """The passing branch's channels, then the computed ones, of the leading `middle` inner channels if given."""
        beside, inside = (x[:, ::2], x[:, 1::2]) if self.splits else (x, x)
        computed = self.main(inside) if middle is None else self._leading(inside, middle)
        return torch.cat([self.passing(beside), computed], dim=1)

    def _leading(self, x: Tensor, middle: int) -> Tensor:
        """The main branch as if it had fewer inner channels; nothing of the others is computed."""
        last = len(self.main) - 1
        for position, layer in enumerate(self.main):
            convolution, norm, *activation = layer.children()
            assert isinstance(convolution, nn.Conv2d)
            assert isinstance(norm, nn.BatchNorm2d)
            grouped, channels = convolution.groups > 1, x.shape[1]
            out = channels if grouped else convolution.out_channels if position == last else middle
            weight = convolution.weight[:out, : 1 if grouped else channels]
            groups = channels if grouped else 1
            x = functional.conv2d(x, weight, None, convolution.stride, convolution.padding, groups=groups)
            x = unscaled_batch_norm(x, norm)
            for part in activation:
                x = part(x)
        return x


class NarrowBlock(nn.Module):
    """A block whose weights are the leading ones of a wider block.

    Args:
        wide: The block that holds the weights, whose BatchNorm layers have no scale and shift.
        middle: Inner channels of this one.
    """

    def __init__(self, wide: Block, middle: int) -> None:
        super().__init__()
        self.wide, self.middle = wide, middle

    def forward(
        self, x: Float[Tensor, "batch in_channels height width"]
    ) -> Float[Tensor, "batch out_channels out_height out_width"]:
        """What the wide block would give with fewer inner channels."""
        # Not a call: who counts the calls of the wide block means those with all channels.
        return self.wide.forward(x, self.middle)


def shared_blocks(operations: Sequence[Operation], place: Place) -> list[nn.Module]:
    """Blocks for a supernet: those that differ in width alone share the weights of the widest.

    Args:
        operations: What they compute.
        place: Where they sit.

    Returns:
        One per operation, in order.
    """
    widest = {kind: max((op for op in operations if op.kind == kind), key=_factor) for kind in _kinds(operations)}
    blocks = {operation: Block(operation, place, affine=False) for operation in widest.values()}
    return [
        blocks[op] if op in blocks else NarrowBlock(blocks[widest[op.kind]], op.middle(place.out_channels))
        for op in operations
    ]


def depthwise(channels: int, kernel_size: int, stride: int, affine: bool) -> nn.Sequential:
    """A depthwise convolution and BatchNorm, without activation.

    Args:
        channels: Channels of input and output.
        kernel_size: Side of the kernel in pixels, odd.
        stride: Step in pixels.
        affine: Whether BatchNorm learns a scale and a shift.
    """
    return conv_bn(channels, channels, kernel_size, stride, groups=channels, affine=affine, activation=None)


def _kinds(operations: Sequence[Operation]) -> list[str]:
    return list(dict.fromkeys(operation.kind for operation in operations))


def _factor(operation: Operation) -> float:
    return operation.factor
