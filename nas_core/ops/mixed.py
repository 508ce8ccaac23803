"""The one mixed operation: every search method is a way to make the gates that it is called with."""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from nas_core.ops.primitives import EndingInNorm, Zero

# What an architecture takes of a slot: one operation, or several or none of them (as an edge that a cell leaves out).
Choice: TypeAlias = int | tuple[int, ...]


class Subset(NamedTuple):
    """Weights of some operations of a slot; the others are not computed.

    Attributes:
        indices: Which operations.
        weights: Weight of each, of shape (indices,).
    """

    indices: tuple[int, ...]
    weights: Tensor


class WeightedEdge(NamedTuple):
    """Weights of all operations of a slot, and one of the whole slot.

    Attributes:
        weight: What the slot's output is multiplied by, a scalar.
        operations: Weight of each operation, of shape (operations,).
    """

    weight: Tensor
    operations: Tensor


# A choice runs that operation alone; a vector of weights mixes all operations of the slot, a subset some of them.
Gate: TypeAlias = Choice | Tensor | Subset | WeightedEdge
Gates: TypeAlias = Sequence[Gate]


def left_out(gate: Gate) -> bool:
    """Whether a gate takes no operation of its slot, so that the slot must not run at all."""
    return isinstance(gate, tuple) and not gate


def indices_of(choice: Choice) -> tuple[int, ...]:
    """The operations that a choice takes, as indices."""
    return choice if isinstance(choice, tuple) else (choice,)


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
        self, x: Any, gate: int | tuple[int, ...] | Float[Tensor, " operations"] | Subset | WeightedEdge
    ) -> Float[Tensor, "batch out_channels out_height out_width"]:
        """Run under a gate.

        Args:
            x: The input of every candidate, as a rule a tensor (batch, channels, height, width).
            gate: An index: that operation runs and nothing of the others is computed. Indices: the sum of these
                operations alone. Weights: the sum of weight x operation(x) over all operations, or over those of a
                subset; gradients reach the weights. Channels that bypass the operations have no part in these
                weights; the weight of an edge multiplies them, too.

        Raises:
            ValueError: If there is not one weight per operation, or no index: the slot's owner leaves it out.
        """
        if isinstance(gate, WeightedEdge):
            return gate.weight * self(x, gate.operations)
        if self.partial == 1:
            return self._mix(x, gate)
        processed, bypass = x.tensor_split([x.shape[1] // self.partial], dim=1)
        mixed = self._mix(processed, gate)
        if mixed.shape[2:] != bypass.shape[2:]:
            bypass = functional.max_pool2d(bypass, 2, ceil_mode=True)
        return functional.channel_shuffle(torch.cat([mixed, bypass], dim=1), self.partial)

    def _mix(self, x: Any, gate: Choice | Tensor | Subset) -> Tensor:
        """The operations under a gate, all channels of `x` passing through them."""
        if isinstance(gate, int):
            return self.operations[gate](x)
        if isinstance(gate, Subset):
            chosen, weights = gate.indices, gate.weights
        elif isinstance(gate, tuple):
            if left_out(gate):
                raise ValueError("a slot of which nothing is chosen must not run")
            return functools.reduce(torch.add, [self.operations[index](x) for index in gate])
        else:
            chosen, weights = range(len(self.operations)), gate
        terms = [(weight, self.operations[index]) for weight, index in zip(weights, chosen, strict=True)]
        # Zeros add nothing to the sum or to a gradient; where there is nothing else, they give it its shape.
        terms = [term for term in terms if not isinstance(term[1], Zero)] or terms[:1]
        return functools.reduce(torch.add, [_weighted(operation, x, weight) for weight, operation in terms])


def _weighted(operation: nn.Module, x: Any, weight: Tensor) -> Tensor:
    """The operation's output times its weight."""
    return operation(x, weight) if isinstance(operation, EndingInNorm) else weight * operation(x)
