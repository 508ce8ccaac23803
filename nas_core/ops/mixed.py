"""The one mixed operation: every search method is a way to make the gates that it is called with."""

import functools
from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional


class Subset(NamedTuple):
    """Weights of some operations of a slot; the others are not computed.

    Attributes:
        indices: Which operations.
        weights: Weight of each, of shape (indices,).
    """

    indices: tuple[int, ...]
    weights: Tensor


# An index runs that operation alone; a vector of weights mixes all operations of the slot, a subset some of them.
Gate: TypeAlias = int | Tensor | Subset
Gates: TypeAlias = Sequence[Gate]


class MixedOperation(nn.Module):
    """The candidate operations of one slot.

    Args:
        operations: The candidates, in the order in which gates count them; all give the same shape. With partial
            channels they are made for 1 / `partial` of the channels.
        partial: Only the first 1 / `partial` of the channels pass through the operations. The others bypass them,
            pooled where the operations halve the sides, and all are shuffled in `partial` groups.

    Source:
        Partial channels: PC-DARTS, arXiv:1907.05737, section 3.2.
    """

    def __init__(self, operations: Sequence[nn.Module], partial: int = 1) -> None:
        super().__init__()
        self.operations = nn.ModuleList(operations)
        self.partial = partial

    def forward(
        self, x: Float[Tensor, "batch channels height width"], gate: int | Float[Tensor, " operations"] | Subset
    ) -> Float[Tensor, "batch out_channels out_height out_width"]:
        """Run under a gate.

        Args:
            x: The input of every candidate.
            gate: An index: that operation runs and nothing of the others is computed. Weights: the sum of
                weight x operation(x) over all operations, or over those of a subset; gradients reach the weights.
                Channels that bypass the operations are multiplied by the sum of the weights: a softmax leaves them
                as they are, and a weight of the whole edge reaches the whole edge.

        Raises:
            ValueError: If there is not one weight per operation.
        """
        if self.partial == 1:
            return self._mix(x, gate)
        processed, bypass = x.tensor_split([x.shape[1] // self.partial], dim=1)
        mixed = self._mix(processed, gate)
        if mixed.shape[2:] != bypass.shape[2:]:
            bypass = functional.max_pool2d(bypass, 2, ceil_mode=True)
        if not isinstance(gate, int):
            bypass = bypass * (gate.weights if isinstance(gate, Subset) else gate).sum()
        return functional.channel_shuffle(torch.cat([mixed, bypass], dim=1), self.partial)

    def _mix(self, x: Tensor, gate: Gate) -> Tensor:
        """The operations under a gate, all channels of `x` passing through them."""
        if isinstance(gate, int):
            return self.operations[gate](x)
        if isinstance(gate, Subset):
            operations, weights = [self.operations[index] for index in gate.indices], gate.weights
        else:
            operations, weights = list(self.operations), gate
        weighted = [weight * operation(x) for weight, operation in zip(weights, operations, strict=True)]
        return functools.reduce(torch.add, weighted)
