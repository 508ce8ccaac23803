"""What images lose or how they are cut before both teacher and student see them."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

# Width over height of a scaled crop, as in torchvision's RandomResizedCrop, over that of the size that it is scaled to.
ASPECT_RATIOS = (3 / 4, 4 / 3)
ATTEMPTS = 10


@dataclass(frozen=True)
class Augmentation:
    """How images vary from epoch to epoch, or for judging others, beside the random window and the flip.

    Attributes:
        crop_scale: Smallest share of a canvas that a crop may have, which is then scaled to the input's size, in
            (0, 1]; None: windows of the input's size, not scaled.
        cutout: Side of the square that every image loses, in pixels; 0: none.
        mixup: Chance of each image to be mixed with another one of its batch, in [0, 1].
        color_jitter: How much brightness, contrast, saturation and tint vary, in [0, 1].
    """

    crop_scale: float | None = None
    cutout: int = 0
    mixup: float = 0.0
    color_jitter: float = 0.0


def scaled_crop(
    canvas: UInt8[Tensor, "channels canvas_height canvas_width"],
    size: tuple[int, int],
    smallest: float,
    generator: torch.Generator,
) -> UInt8[Tensor, "channels height width"]:
    """A random part of a canvas of random size and shape, scaled to `size` = (height, width).

    Args:
        canvas: The image.
        size: Of the result, in pixels.
        smallest: Share of the canvas's area that the part has at least; the share is uniform up to 1.
        generator: Source of the draws. torchvision's own transform draws from the global one.

    Source:
        Szegedy et al., arXiv:1409.4842, section 6; the drawing of torchvision's RandomResizedCrop, whose shapes are
        those of a square result.
    """
    from torchvision.transforms.v2 import functional as transforms

    _, height, width = canvas.shape
    for _ in range(ATTEMPTS):
        share, log_ratio = torch.rand(2, generator=generator).tolist()
        area = (smallest + share * (1 - smallest)) * height * width
        low, high = map(math.log, ASPECT_RATIOS)
        ratio = math.exp(low + log_ratio * (high - low)) * (size[1] / size[0])
        part = (round(math.sqrt(area / ratio)), round(math.sqrt(area * ratio)))
        if 0 < part[0] <= height and 0 < part[1] <= width:
            break
    else:
        part = (height, width)
    top, left = (
        int(torch.randint(whole - side + 1, (), generator=generator))
        for whole, side in zip((height, width), part, strict=True)
    )
    return transforms.resized_crop(canvas, top, left, *part, list(size), antialias=True)


def color_jitter(
    images: UInt8[Tensor, "batch channels height width"], strength: float, generator: torch.Generator
) -> UInt8[Tensor, "batch channels height width"]:
    """Images of another brightness, contrast, saturation and tint, in this order, each image by draws of its own.

    Args:
        images: Bytes; of one channel, they have no saturation to change.
        strength: In [0, 1]; 0 leaves the images as they are. Brightness and contrast are multiplied by factors uniform
            in 1 ± strength / 2, saturation by one in 1 ± strength; every channel is shifted by up to ± strength / 10
            of the range of values.
        generator: Source of the draws. torchvision's own transform draws from the global one.

    Source:
        After the colour distortion of SimCLR, arXiv:2002.05709, appendix A, which turns the hue instead of tinting,
        varies all three by 0.8 x strength in random order, spares a fifth of the images and makes another fifth grey.
    """
    count, channels = images.shape[:2]
    spread = strength * torch.tensor([0.5, 0.5, 1.0]).reshape(3, 1, 1, 1, 1)
    factors = 1 + spread * (2 * torch.rand((3, count, 1, 1, 1), generator=generator) - 1)
    tint = 25.5 * strength * (2 * torch.rand((count, channels, 1, 1), generator=generator) - 1)
    brightness, contrast, saturation = factors.to(images.device)
    pixels = images.float() * brightness
    pixels = torch.lerp(pixels.mean(dim=(1, 2, 3), keepdim=True), pixels, contrast)
    pixels = torch.lerp(pixels.mean(dim=1, keepdim=True), pixels, saturation)
    return (pixels + tint.to(images.device)).round().clamp(0, 255).to(torch.uint8)


def cutout(
    images: Float[Tensor, "batch channels height width"], chance: float, side: int, generator: torch.Generator
) -> Float[Tensor, "batch channels height width"]:
    """Images of which some lose a square around a random pixel; zeros, which is the mean of normalised images.

    Args:
        images: Normalised images.
        chance: Of each image to lose a square.
        side: Of the square, in pixels; parts outside the image are lost.
        generator: Source of the draws.

    Source:
        DeVries and Taylor, arXiv:1708.04552.
    """
    count, _, height, width = images.shape
    inside = (torch.rand((count, 1, 1, 1), generator=generator) < chance) & _band(count, height, side, generator)[
        :, None, :, None
    ]
    inside = inside & _band(count, width, side, generator)[:, None, None, :]
    return images.masked_fill(inside.to(images.device), 0.0)


def mixup(
    images: Float[Tensor, "batch channels height width"], chance: float, generator: torch.Generator
) -> Float[Tensor, "batch channels height width"]:
    """Images of which some are weighted means with another one of the batch; the weights are uniform in [0, 1].

    Labels are not mixed: the teacher labels what comes out.

    Args:
        images: Normalised images.
        chance: Of each image to be mixed.
        generator: Source of the draws.

    Source:
        Zhang et al., arXiv:1710.09412, with their alpha = 1. That a teacher which labels mixtures of few images passes
        on more of what it knows is from Beyer et al., arXiv:2106.05237.
    """
    shape = (len(images), 1, 1, 1)
    others = torch.randperm(len(images), generator=generator).to(images.device)
    mixed = torch.rand(shape, generator=generator) < chance
    share = torch.where(mixed, torch.rand(shape, generator=generator), 0.0).to(images.device)
    return torch.lerp(images, images[others], share)


def _band(count: int, size: int, side: int, generator: torch.Generator) -> Tensor:
    """Per image, which of `size` lines lie in a square around a random one."""
    first = torch.randint(size, (count, 1), generator=generator) - side // 2
    lines = torch.arange(size)
    return (lines >= first) & (lines < first + side)
