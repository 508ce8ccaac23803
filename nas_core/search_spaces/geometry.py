"""Sides of maps, for spaces that are a row of strided blocks."""

import math
from collections.abc import Sequence
from typing import Literal

from nas_core.errors import InputError

Strides = tuple[Literal[1, 2], ...]


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
