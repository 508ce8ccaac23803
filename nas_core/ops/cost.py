"""What a network costs: multiply-accumulates and parameters, and costs that add up over its parts."""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from nas_core.ops.mixed import Choice, indices_of

Cost = TypeVar("Cost", int, float)


def count_macs(module: nn.Module, input_shape: tuple[int, int, int]) -> int:
    """Multiply-accumulates of the convolutions and linear layers for one image; what papers call "FLOPs".

    A copy of the module runs once on the meta device, in eval mode: nothing is computed and `module` is not touched.

    Args:
        module: Takes one tensor (batch, channels, height, width).
        input_shape: (channels, height, width) of the image.
    """
    shadow = copy.deepcopy(module).to("meta").eval()
    return macs_of_call(shadow, torch.empty(1, *input_shape, device="meta"))


@torch.no_grad()
def macs_of_call(module: nn.Module, images: Float[Tensor, "batch channels height width"]) -> int:
    """Multiply-accumulates of one call of a module as it is, such as a teacher.

    A network of somebody else may not run on the meta device: its code looks at values, or keeps tensors that do not
    move with it.

    Args:
        module: In eval mode.
        images: What it is called with, on its device.
    """
    from torch.utils.flop_counter import FlopCounterMode  # It imports a compiler, where there is one.

    with _plain_attention(), FlopCounterMode(display=False) as counter:
        module(images)
    # The counter takes a multiply-accumulate for two operations.
    return counter.get_total_flops() // 2


@contextmanager
def _plain_attention() -> Iterator[None]:
    """Attention as matrix products within, because the counter does not know every fused form of it."""
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)


def count_parameters(module: nn.Module) -> int:
    """Number of parameters, buffers such as running statistics left out."""
    return sum(parameter.numel() for parameter in module.parameters())


@dataclass(frozen=True)
class Part:
    """A piece of a stand-alone network that costs something: multiply-accumulates, or time.

    Attributes:
        kind: What it is, with all that decides its cost beside the input (layer, expansion, kernel, stride, width,
            shortcut, cells, classes): parts of one kind and input cost the same, whatever space they are of.
        make: Makes the module, which takes one tensor (batch, *input_shape).
        input_shape: (channels, height, width).
        count: How many times the network holds it.
    """

    kind: str
    make: Callable[[], nn.Module]
    input_shape: tuple[int, int, int]
    count: int = 1


@dataclass(frozen=True)
class CostTable(Generic[Cost]):
    """An additive cost of architectures.

    Attributes:
        fixed: Cost of what is outside all slots.
        operations: Cost of each operation of each slot.
    """

    fixed: Cost
    operations: tuple[tuple[Cost, ...], ...]

    def of(self, choices: Sequence[Choice]) -> Cost:
        """The cost of an architecture."""
        return self.fixed + self.of_slots(range(len(self.operations)), choices)

    def of_slots(self, slots: Sequence[int], choices: Sequence[Choice]) -> Cost:
        """The cost of what is chosen in some slots, given by index with one choice each."""
        chosen = zip(slots, choices, strict=True)
        nothing = self.fixed - self.fixed
        return sum((self.operations[slot][index] for slot, choice in chosen for index in indices_of(choice)), nothing)
