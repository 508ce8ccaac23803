"""The one mixed operation: every search method is a way to make the gates that it is called with."""

import functools
from collections.abc import Sequence
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor, nn

# An index runs that operation alone; a vector of weights, one per operation, mixes all of them.
Gate: TypeAlias = int | Tensor
Gates: TypeAlias = Sequence[Gate]


class MixedOperation(nn.Module):
    """The candidate operations of one slot.

    Args:
        operations: The candidates, in the order in which gates count them; all give the same shape.
    """

    def __init__(self, operations: Sequence[nn.Module]) -> None:
        super().__init__()
        self.operations = nn.ModuleList(operations)

    def forward(
        self, x: Float[Tensor, "batch channels height width"], gate: int | Float[Tensor, " operations"]
    ) -> Float[Tensor, "batch out_channels out_height out_width"]:
        """Run under a gate.

        Args:
            x: The input of every candidate.
            gate: An index: that operation runs and nothing of the others is computed. Weights: the sum of
                weight x operation(x) over all operations; gradients reach the weights.

        Raises:
            ValueError: If there is not one weight per operation.
        """
        if isinstance(gate, int):
            return self.operations[gate](x)
        weighted = [weight * operation(x) for weight, operation in zip(gate, self.operations, strict=True)]
        return functools.reduce(torch.add, weighted)
