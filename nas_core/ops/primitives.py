"""Operations that search spaces are built from; each takes and returns (batch, channels, height, width)."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from nas_core.ops.batch_norm import unscaled_batch_norm


class Zero(nn.Module):
    """The absence of a connection: zeros through which no gradient flows.

    Args:
        stride: Step in pixels by which the map shrinks.
    """

    def __init__(self, stride: int = 1) -> None:
        super().__init__()
        self.stride = stride

    def forward(
        self, x: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch channels out_height out_width"]:
        """Zeros of the strided shape, whatever `x` holds."""
        return torch.zeros_like(x[:, :, :: self.stride, :: self.stride])


class Subsample(nn.Module):
    """Every so many-th pixel of every row: the shape that a strided operation leaves, and nothing of its work.

    Args:
        stride: Step in pixels; an odd side is rounded up when halved.
    """

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride

    def forward(
        self, x: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch channels out_height out_width"]:
        """A view of these pixels."""
        return x[:, :, :: self.stride, :: self.stride]


class EndingInNorm(nn.Sequential):
    """Layers in a row of which the last is a BatchNorm, as a rule: training-free scores take it away.

    A mixture multiplies operations by weights. Where the BatchNorm has no scale of its own, as in most supernets, it
    takes the weight as its scale: neither the product nor its gradient is then computed over the map.
    """

    def forward(
        self,
        input: Float[Tensor, "batch channels height width"],  # noqa: A002 - the base class's name
        weight: Float[Tensor, ""] | None = None,
    ) -> Float[Tensor, "batch out_channels out_height out_width"]:
        """The output, times `weight` if given."""
        if weight is None:
            return super().forward(input)
        *layers, norm = self
        if not isinstance(norm, nn.BatchNorm2d) or norm.affine:
            return weight * super().forward(input)
        for layer in layers:
            input = layer(input)  # noqa: A001
        return unscaled_batch_norm(input, norm, weight)


def relu_conv_bn(
    in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, affine: bool = True
) -> EndingInNorm:
    """ReLU, a convolution without bias that keeps the size at stride 1, BatchNorm.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel_size: Side of the kernel in pixels, odd.
        stride: Step in pixels; an odd side is rounded up when halved.
        affine: Whether BatchNorm learns a scale and a shift.
    """
    return EndingInNorm(
        # Not in place: the input is also the input of the node's other edges.
        nn.ReLU(),
        nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding=kernel_size // 2, bias=False),
        nn.BatchNorm2d(out_channels, affine=affine),
    )


def average_pool(kernel_size: int, stride: int = 1) -> nn.AvgPool2d:
    """Average pooling that keeps the size at stride 1; border windows average only the pixels that exist.

    Args:
        kernel_size: Side of the window in pixels, odd.
        stride: Step in pixels.
    """
    return nn.AvgPool2d(kernel_size, stride, padding=kernel_size // 2, count_include_pad=False)


def conv_bn(
    in_channels: int,
    out_channels: int,
    kernel_size: int = 1,
    stride: int = 1,
    groups: int = 1,
    affine: bool = True,
    activation: type[nn.Module] | None = nn.ReLU,
    eps: float = 1e-5,
) -> nn.Sequential:
    """A convolution without bias that keeps the size at stride 1, BatchNorm, and an activation.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel_size: Side of the kernel in pixels, odd.
        stride: Step in pixels; an odd side is rounded up when halved.
        groups: Groups of the convolution; as many as channels makes it depthwise.
        affine: Whether BatchNorm learns a scale and a shift.
        activation: Class of the activation, or None for none.
        eps: Added to BatchNorm's variance.
    """
    padding = kernel_size // 2
    layers: list[nn.Module] = [
        nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, groups=groups, bias=False),
        nn.BatchNorm2d(out_channels, eps=eps, affine=affine),
    ]
    return nn.Sequential(*layers, *([] if activation is None else [activation()]))
