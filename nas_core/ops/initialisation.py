"""Initial weights from a seeded generator, so that no weight depends on the state of a global one."""

import math

import torch
from torch import Tensor, nn


@torch.no_grad()
def initialise(module: nn.Module, generator: torch.Generator) -> None:
    """Draw every parameter of a network anew, in place; BatchNorm's running statistics start over too.

    Convolutions: weights N(0, 2 / fan_in) (He et al. 2015, arXiv:1502.01852, eq. 10), biases 0. Linear layers:
    weights and biases U(-b, b) with b = 1 / sqrt(fan_in), PyTorch's default. BatchNorm: scale 1, shift 0.

    Args:
        module: The network, on any device.
        generator: A CPU generator, so that every device gets the same numbers.

    Raises:
        TypeError: If a part of the network has parameters of its own and is none of these layers.
    """
    for name, part in module.named_modules():
        if isinstance(part, nn.Conv2d):
            part.weight.copy_(_normal(part.weight, generator) * math.sqrt(2 / _fan_in(part.weight)))
            if part.bias is not None:
                part.bias.zero_()
        elif isinstance(part, nn.Linear):
            bound = 1 / math.sqrt(_fan_in(part.weight))
            for parameter in part.parameters(recurse=False):
                parameter.copy_(_uniform(parameter, generator) * bound)
        elif isinstance(part, nn.BatchNorm2d):
            part.reset_parameters()
        elif next(part.parameters(recurse=False), None) is not None:
            raise TypeError(f"no rule draws the parameters of '{name}' ({type(part).__name__}); add one here")


def _fan_in(weight: Tensor) -> int:
    return weight[0].numel()


def _normal(like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(like.shape, generator=generator)


def _uniform(like: Tensor, generator: torch.Generator) -> Tensor:
    """Uniform numbers in [-1, 1)."""
    return torch.rand(like.shape, generator=generator) * 2 - 1
