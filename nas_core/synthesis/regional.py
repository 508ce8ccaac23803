"""Regional update: each step sees one random window of a larger canvas, so that every window becomes an image."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import interpolate

LARGEST_STRETCH = 4 / 3  # of a window's aspect ratio, with scale jitter: RandomResizedCrop's default


@dataclass(frozen=True)
class Window:
    """A region of a canvas as the teacher sees it: rows from `top`, columns from `left`, mirrored if `flip`."""

    top: int
    left: int
    height: int
    width: int
    flip: bool


def random_window(
    canvas_size: tuple[int, int],
    window_size: tuple[int, int],
    *,
    may_flip: bool,
    generator: torch.Generator,
    min_scale: float = 1.0,
) -> Window:
    """A window at a uniform offset, flipped with probability 1/2 if `may_flip`.

    Args:
        canvas_size: Height and width of the canvas.
        window_size: Height and width of the window, at most the canvas's.
        may_flip: Whether mirrored images keep their class. The public codes draw the coin but always flip;
            here it is fair.
        generator: Source of the draws; their number does not depend on the sizes.
        min_scale: In (0, 1]; below 1 the window's area is a uniform share in [min_scale, 1] of `window_size` and
            its aspect ratio is stretched by a log-uniform factor in [3/4, 4/3], as far as the canvas allows.

    Source:
        Data-Free NAS, arXiv:2112.02086, regional update: one window per step, shared by the batch. With
        `min_scale` 0.08 and a canvas of the window's size, the RandomResizedCrop of SRe2L, arXiv:2306.13092.
    """
    (height, width), (canvas_height, canvas_width) = window_size, canvas_size
    if min_scale < 1:
        share, stretch = torch.rand(2, generator=generator).tolist()
        side = math.sqrt(min_scale + (1 - min_scale) * share)
        ratio = math.sqrt(LARGEST_STRETCH) ** (2 * stretch - 1)
        height = min(max(1, round(height * side / ratio)), canvas_height)
        width = min(max(1, round(width * side * ratio)), canvas_width)
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


def resized(
    view: Float[Tensor, "batch channels height width"], size: tuple[int, int]
) -> Float[Tensor, "batch channels new_height new_width"]:
    """The view in another height and width by bilinear interpolation; itself if it has them already."""
    return view if view.shape[2:] == size else interpolate(view, size, mode="bilinear", align_corners=False)
