"""What spaces share that are a row of strided blocks: the row as a network, and the sides of its maps."""

import math
from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from nas_core.errors import InputError
from nas_core.ops.mixed import Gates


class BlockRow(nn.Module):
    """Stem, blocks and head.

    Args:
        stem: From images to the first block with a choice.
        blocks: One module per place: a block, or a mixture of them to be called with a gate.
        head: From the last block to logits.
    """

    def __init__(self, stem: nn.Module, blocks: Sequence[nn.Module], head: nn.Module) -> None:
        super().__init__()
        self.stem, self.blocks, self.head = stem, nn.ModuleList(blocks), head

    def forward(
        self, x: Float[Tensor, "batch channels height width"], gates: Gates | None = None
    ) -> Float[Tensor, "batch classes"]:
        """Logits of normalised images, under one gate per block if the blocks are mixed."""
        x = self.stem(x)
        for index, block in enumerate(self.blocks):
            x = block(x) if gates is None else block(x, gates[index])
        return self.head(x)


def shrunk(side: tuple[int, int], stride: int) -> tuple[int, int]:
    """(height, width) after a strided convolution that keeps the size at stride 1: rounded up."""
    return -(-side[0] // stride), -(-side[1] // stride)


def check_strides(space: str, input_shape: tuple[int, int, int], strides: Sequence[int]) -> None:
    """Refuse images with a side smaller than the product of all strides, whose last map would be mostly padding.

    Raises:
        InputError: With the space, the size and the product.
    """
    total = math.prod(strides)
    if min(input_shape[1:]) < total:
        raise InputError(
            f"search space '{space}' shrinks images {total} times, which is too much for {input_shape[1]} x "
            f"{input_shape[2]} pixels; set some of its strides to 1"
        )
