"""Operations that search spaces are built from; each takes and returns (batch, channels, height, width)."""

import torch
from jaxtyping import Float
from torch import Tensor, nn


class Zero(nn.Module):
    """The absence of a connection: zeros of the input's shape, through which no gradient flows."""

    def forward(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch channels height width"]:
        """Zeros, whatever `x` holds."""
        return torch.zeros_like(x)


def relu_conv_bn(
    in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, affine: bool = True
) -> nn.Sequential:
    """ReLU, a convolution without bias that keeps the size at stride 1, BatchNorm.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel_size: Side of the kernel in pixels, odd.
        stride: Step in pixels; an odd side is rounded up when halved.
        affine: Whether BatchNorm learns a scale and a shift.
    """
    return nn.Sequential(
        # Not in place: the input is also the input of the node's other edges.
        nn.ReLU(),
        nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding=kernel_size // 2, bias=False),
        nn.BatchNorm2d(out_channels, affine=affine),
    )


def average_pool(kernel_size: int) -> nn.AvgPool2d:
    """Average pooling at stride 1 that keeps the size; border windows average only the pixels that exist.

    Args:
        kernel_size: Side of the window in pixels, odd.
    """
    return nn.AvgPool2d(kernel_size, stride=1, padding=kernel_size // 2, count_include_pad=False)
