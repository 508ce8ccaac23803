"""What a network costs: multiply-accumulates and parameters."""

import copy

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


def count_macs(module: nn.Module, input_shape: tuple[int, int, int]) -> int:
    """Multiply-accumulates of the convolutions and linear layers for one image; what papers call "FLOPs".

    A copy of the module runs once on the meta device, in eval mode: nothing is computed and `module` is not touched.

    Args:
        module: Takes one tensor (batch, channels, height, width).
        input_shape: (channels, height, width) of the image.
    """
    shadow = copy.deepcopy(module).to("meta").eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        shadow(torch.empty(1, *input_shape, device="meta"))
    # The counter takes a multiply-accumulate for two operations.
    return counter.get_total_flops() // 2


def count_parameters(module: nn.Module) -> int:
    """Number of parameters, buffers such as running statistics left out."""
    return sum(parameter.numel() for parameter in module.parameters())
