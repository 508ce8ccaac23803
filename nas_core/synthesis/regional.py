"""Regional update: each step sees one random window of a larger canvas, so that every window becomes an image."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Window:
    """A region of a canvas as the teacher sees it: rows from `top`, columns from `left`, mirrored if `flip`."""

    top: int
    left: int
    height: int
    width: int
    flip: bool


def random_window(
    canvas_size: tuple[int, int], window_size: tuple[int, int], *, may_flip: bool, generator: torch.Generator
) -> Window:
    """A window at a uniform offset, flipped with probability 1/2 if `may_flip`.

    Args:
        canvas_size: Height and width of the canvas.
        window_size: Height and width of the window, at most the canvas's.
        may_flip: Whether mirrored images keep their class. The public codes draw the coin but always flip;
            here it is fair.
        generator: Source of the draws; the number of draws does not depend on the sizes.

    Source:
        Data-Free NAS, arXiv:2112.02086, regional update: one window per step, shared by the batch.
    """
    (height, width), (canvas_height, canvas_width) = window_size, canvas_size
    top = int(torch.randint(canvas_height - height + 1, (), generator=generator))
    left = int(torch.randint(canvas_width - width + 1, (), generator=generator))
    heads = bool(torch.randint(2, (), generator=generator))
    return Window(top, left, height, width, flip=heads and may_flip)


def cut(
    canvas: Float[Tensor, "batch channels canvas_height canvas_width"], window: Window
) -> Float[Tensor, "batch channels height width"]:
    """The window's view of the canvas; its gradient reaches that window only."""
    rows, columns = slice(window.top, window.top + window.height), slice(window.left, window.left + window.width)
    view = canvas[:, :, rows, columns]
    return view.flip(3) if window.flip else view
