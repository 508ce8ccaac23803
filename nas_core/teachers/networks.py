"""Reference teachers: the residual networks of He et al. for small images.

One class covers all of them. Three stages of basic blocks; the second and third halve the resolution. Shortcuts
have no parameters ("option A"): they take every second pixel and fill the new channels with zeros.
"""

import torch.nn.functional as F  # noqa: N812
from jaxtyping import Float
from torch import Tensor, nn


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with BatchNorm around an option-A shortcut.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output, at least `in_channels`.
        stride: Factor by which height and width shrink.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.stride = stride
        self.new_channels = out_channels - in_channels

    def forward(
        self, x: Float[Tensor, "batch in_channels height width"]
    ) -> Float[Tensor, "batch out_channels out_height out_width"]:
        """Residual plus shortcut, rectified."""
        residual = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        before = self.new_channels // 2
        shortcut = x[:, :, :: self.stride, :: self.stride]
        shortcut = F.pad(shortcut, (0, 0, 0, 0, before, self.new_channels - before))
        return F.relu(residual + shortcut)


class ResNet(nn.Module):
    """A residual network for small images: stem, three stages, average over pixels, one linear layer.

    Args:
        blocks: Basic blocks per stage; the depth is 6 * blocks + 2.
        widths: Channels of the three stages, not decreasing.
        in_channels: Channels of the images.
        num_classes: Number of logits.

    Source:
        Section 4.2 of "Deep Residual Learning for Image Recognition", arXiv:1512.03385.
    """

    def __init__(self, blocks: int, widths: tuple[int, int, int], in_channels: int, num_classes: int) -> None:
        super().__init__()
        self.blocks, self.widths = blocks, widths
        first, second, third = widths
        self.conv1 = nn.Conv2d(in_channels, first, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(first)
        self.layer1 = _stage(blocks, first, first, stride=1)
        self.layer2 = _stage(blocks, first, second, stride=2)
        self.layer3 = _stage(blocks, second, third, stride=2)
        self.linear = nn.Linear(third, num_classes)

    def forward(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch classes"]:
        """Logits of normalised images."""
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(x.mean(dim=(2, 3)))


def _stage(blocks: int, in_channels: int, out_channels: int, stride: int) -> nn.Sequential:
    later = (BasicBlock(out_channels, out_channels, stride=1) for _ in range(blocks - 1))
    return nn.Sequential(BasicBlock(in_channels, out_channels, stride), *later)


def resnet20(in_channels: int = 3, num_classes: int = 10) -> ResNet:
    """ResNet-20 for 32x32 images: 0.27 million parameters, 40.6 million multiply-accumulates."""
    return ResNet(3, (16, 32, 64), in_channels, num_classes)


def resnet32(in_channels: int = 3, num_classes: int = 10) -> ResNet:
    """ResNet-32 for 32x32 images: 0.46 million parameters."""
    return ResNet(5, (16, 32, 64), in_channels, num_classes)


def resnet44(in_channels: int = 3, num_classes: int = 10) -> ResNet:
    """ResNet-44 for 32x32 images: 0.66 million parameters."""
    return ResNet(7, (16, 32, 64), in_channels, num_classes)


def resnet56(in_channels: int = 3, num_classes: int = 10) -> ResNet:
    """ResNet-56 for 32x32 images: 0.85 million parameters."""
    return ResNet(9, (16, 32, 64), in_channels, num_classes)


def digits_resnet(in_channels: int = 1, num_classes: int = 10) -> ResNet:
    """ResNet-8 for 8x8 digits: 0.17 million parameters."""
    return ResNet(1, (24, 48, 96), in_channels, num_classes)
