"""Building blocks of NAS-Bench-1Shot1 networks: operations, inputs, cells, and everything around them."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from nas_core.ops.mixed import Gates, MixedOperation
from nas_core.ops.primitives import conv_bn

STACKS = 3

# Gives a node's output: 0 is the cell's input, and blocks count from 1. Blocks that nobody asks for do not run.
Nodes = Callable[[int], Tensor]


def block_operation(name: str, channels: int) -> nn.Module:
    """An operation of a block, which keeps the shape."""
    if name == "maxpool3x3":
        return nn.MaxPool2d(3, stride=1, padding=1)
    return conv_bn(channels, channels, int(name[len("conv")]))


class Take(nn.Module):
    """A node's output, from all nodes of a cell.

    Args:
        node: Its number.
        then: What happens to it, such as a projection of the cell's input to a block's width.
    """

    def __init__(self, node: int, then: nn.Module) -> None:
        super().__init__()
        self.node, self.then = node, then

    def forward(self, nodes: Nodes) -> Float[Tensor, "batch channels height width"]:
        """The output after `then`."""
        return self.then(nodes(self.node))


class Place(nn.Module):
    """Puts a map's channels at their place among more, which are zero.

    Args:
        before: Channels before.
        after: Channels after.
    """

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.padding = (0, 0, 0, 0, before, after)

    def forward(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch more height width"]:
        """The wider map."""
        return functional.pad(x, self.padding)


class Sum(nn.Module):
    """The sum of several takes.

    Args:
        takes: What is summed, at least one.
    """

    def __init__(self, takes: Sequence[nn.Module]) -> None:
        super().__init__()
        self.takes = nn.ModuleList(takes)

    def forward(self, nodes: Nodes) -> Float[Tensor, "batch channels height width"]:
        """The sum."""
        return functools.reduce(torch.add, [take(nodes) for take in self.takes])


class Cell(nn.Module):
    """Blocks that sum their inputs and apply an operation, and an output that joins some of them.

    Args:
        operations: One module per block: an operation, or a `MixedOperation`.
        inputs: One module per block and one for the output, from `Nodes` to a map: `Sum`, or a `MixedOperation`.
    """

    def __init__(self, operations: Sequence[nn.Module], inputs: Sequence[nn.Module]) -> None:
        super().__init__()
        self.operations, self.inputs = nn.ModuleList(operations), nn.ModuleList(inputs)

    def forward(
        self, x: Float[Tensor, "batch channels height width"], gates: Gates | None = None
    ) -> Float[Tensor, "batch out_channels height width"]:
        """The output, under the gates of the mixed operations and then of the mixed inputs."""
        slots = iter(gates or ())
        given = [(next(slots),) if isinstance(m, MixedOperation) else () for m in (*self.operations, *self.inputs)]
        run = _Run(self, x, given)
        if gates is None:
            # A stand-alone cell runs its loose ends too, so that its cost is the sum over what it is made of.
            for block in range(len(self.operations)):
                run(block + 1)
        return self.inputs[-1](run, *given[-1])


class _Run:
    """One pass through a cell, which runs a block when it is first asked for.

    Args:
        cell: The cell.
        x: Its input.
        given: The gate of each operation and then of each inputs, if it is mixed.
    """

    def __init__(self, cell: Cell, x: Tensor, given: Sequence[tuple[Any, ...]]) -> None:
        self._cell, self._given, self._values = cell, given, {0: x}

    def __call__(self, node: int) -> Tensor:
        """A node's output."""
        if node not in self._values:
            operations, inputs = self._cell.operations, self._cell.inputs
            arrived = inputs[node - 1](self, *self._given[len(operations) + node - 1])
            self._values[node] = operations[node - 1](arrived, *self._given[node - 1])
        return self._values[node]


class Macro(nn.Module):
    """Stem, three stacks of cells with pooling between them, and head.

    Args:
        stem: From images to the first cell.
        cells: All cells, those of a stack one after the other.
        classifier: From averaged features to logits.
    """

    def __init__(self, stem: nn.Module, cells: Sequence[Cell], classifier: nn.Module) -> None:
        super().__init__()
        self.stem, self.cells, self.classifier = stem, nn.ModuleList(cells), classifier
        # Odd sides are rounded up, so that images of any size pass.
        self.pool = nn.MaxPool2d(2, ceil_mode=True)

    def forward(
        self, x: Float[Tensor, "batch channels height width"], gates: Gates | None = None
    ) -> Float[Tensor, "batch classes"]:
        """Logits of normalised images; every cell gets the same gates."""
        x = self.stem(x)
        for position, cell in enumerate(self.cells):
            if position and position % (len(self.cells) // STACKS) == 0:
                x = self.pool(x)
            x = cell(x, gates)
        return self.classifier(x.mean(dim=(2, 3)))


def projection(node: int, in_channels: int, channels: int) -> nn.Module:
    """The cell's input comes with its own width, blocks with theirs."""
    return nn.Identity() if node else conv_bn(in_channels, channels)


def take(node: int, in_channels: int, channels: int) -> Take:
    """A node's output with a block's width."""
    return Take(node, projection(node, in_channels, channels))
