"""The one mixed operation: every search method is a way to make the gates that it is called with."""

import functools
from collections.abc import Sequence
from typing import Any, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor, nn

# What an architecture takes of a slot: one operation, or several or none of them (as an edge that a cell leaves out).
Choice: TypeAlias = int | tuple[int, ...]
# A choice runs that operation alone; a vector of weights, one per operation, mixes all of them.
Gate: TypeAlias = Choice | Tensor
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
        operations: The candidates, in the order in which gates count them; all give the same shape.
    """

    def __init__(self, operations: Sequence[nn.Module]) -> None:
        super().__init__()
        self.operations = nn.ModuleList(operations)

    def forward(
        self, x: Any, gate: int | tuple[int, ...] | Float[Tensor, " operations"]
    ) -> Float[Tensor, "batch out_channels out_height out_width"]:
        """Run under a gate.

        Args:
            x: The input of every candidate, as a rule a tensor (batch, channels, height, width).
            gate: An index: that operation runs and nothing of the others is computed. Indices: the sum of these
                operations alone. Weights: the sum of weight x operation(x) over all operations; gradients reach the
                weights.

        Raises:
            ValueError: If there is not one weight per operation, or no index: the slot's owner leaves it out.
        """
        if isinstance(gate, int):
            return self.operations[gate](x)
        if left_out(gate):
            raise ValueError("a slot of which nothing is chosen must not run")
        if isinstance(gate, tuple):
            terms = [self.operations[index](x) for index in gate]
        else:
            terms = [weight * operation(x) for weight, operation in zip(gate, self.operations, strict=True)]
        return functools.reduce(torch.add, terms)
