"""NAS-Bench-1Shot1: three spaces of NAS-Bench-101 cells in which blocks choose an operation and their inputs.

Source: Zela, Siems and Hutter, "NAS-Bench-1Shot1", arXiv:2001.10422, and its reference code. An input slot offers the
nodes before it: weights mix them, and an architecture takes a fixed number of them.

One deviation: networks keep a block's width fixed and put what the output takes side by side, a projection of the
cell's input included, so that costs add up; NAS-Bench-101 divides a fixed width by the number of blocks that the output
takes, and adds the projection.
"""

import functools
import itertools
import re
from collections.abc import Callable, Sequence
from typing import ClassVar, Literal

from torch import nn

from nas_core.errors import InputError
from nas_core.ops.cost import Part
from nas_core.ops.mixed import MixedOperation
from nas_core.ops.primitives import conv_bn
from nas_core.search_spaces.base import Architecture, Choices, Chosen, Decision, SearchSpace, Slot, Supernet
from nas_core.search_spaces.nasbench1shot1_cells import (
    STACKS,
    Cell,
    Macro,
    Place,
    Sum,
    Take,
    block_operation,
    projection,
    take,
)
from nas_core.search_spaces.rows import shrunk
from nas_core.settings.spaces import NasBench1Shot1Spec, spaces

OPERATIONS = ("maxpool3x3", "conv3x3-bn-relu", "conv1x1-bn-relu")
INPUT, OUTPUT = "input", "output"

# How many of the nodes before it each block takes, and the output last.
PARENTS = {"s1": (1, 2, 2, 2, 2), "s2": (1, 1, 2, 2, 3), "s3": (1, 1, 1, 2, 2, 2)}


class NasBench1Shot1Supernet(Macro, Supernet):
    """The macro network with every allowed operation and input; called with one gate per slot."""


@spaces.register(NasBench1Shot1Spec)
class NasBench1Shot1(SearchSpace):
    """One of the three spaces, for images of any size.

    Args:
        space: "s1", "s2" or "s3".
        channels: Channels of a block in the supernet's first stack.
        network_channels: Channels of a block in the network's first stack.
        cells: Cells per stack.
        loose_ends: Whether the output may ignore a block; it then runs all the same.
        input_shape: (channels, height, width) of the images.
        num_classes: Number of logits.

    Raises:
        InputError: If a size is not positive.
    """

    name: ClassVar[str] = "nasbench1shot1"

    def __init__(
        self,
        space: Literal["s1", "s2", "s3"] = "s1",
        channels: int = 16,
        network_channels: int = 64,
        cells: int = 3,
        loose_ends: bool = True,
        *,
        input_shape: tuple[int, int, int],
        num_classes: int,
    ) -> None:
        self.check_sizes(
            channels=channels,
            network_channels=network_channels,
            cells=cells,
            num_classes=num_classes,
            input_shape=min(input_shape),
        )
        self.parents, self.loose_ends = PARENTS[space], loose_ends
        self.channels, self.network_channels, self.cells = channels, network_channels, cells
        self.input_shape, self.num_classes = input_shape, num_classes
        self.blocks = len(self.parents) - 1
        # The places (blocks from 0, the output last) that choose among more nodes than they take.
        self.choosers = tuple(place for place, taken in enumerate(self.parents) if taken <= place)
        nodes = (INPUT, *(str(block + 1) for block in range(self.blocks)))
        self.slots = (
            *(Slot(f"block {block + 1}", OPERATIONS) for block in range(self.blocks)),
            *(Slot(f"inputs of {self._title(place)}", nodes[: place + 1]) for place in self.choosers),
        )

    @functools.cached_property
    def decisions(self) -> tuple[Decision, ...]:
        """Operations one by one; inputs one by one too, or all together where every block must be used."""
        slots = range(self.blocks, len(self.slots))
        options = [self._subsets(slot) for slot in slots]
        operations = super().decisions[: self.blocks]
        if self.loose_ends:
            chosen = zip(slots, options, strict=True)
            return (*operations, *(Decision((s,), tuple((subset,) for subset in subsets)) for s, subsets in chosen))
        joint = tuple(filter(self._uses_every_block, itertools.product(*options)))
        return (*operations, Decision(tuple(slots), joint))

    def supernet(self, *, partial: int = 1) -> NasBench1Shot1Supernet:
        """A supernet, whose output has a place for every block."""
        self.check_partial(partial)

        def make_cell(in_channels: int, channels: int) -> tuple[Cell, int]:
            operations = [
                MixedOperation([block_operation(name, channels) for name in slot.operations])
                for slot in self.slots[: self.blocks]
            ]
            width = self.blocks * channels
            inputs: list[nn.Module] = []
            for place in range(self.blocks):
                offered = self._offered(place)
                takes = [take(node, in_channels, channels) for node in offered]
                inputs.append(MixedOperation(takes) if place in self.choosers else Sum(takes))
            ends = [
                Take(node, Place((node - 1) * channels, width - node * channels))
                if node
                else take(0, in_channels, width)
                for node in self._offered(self.blocks)
            ]
            return Cell(operations, [*inputs, MixedOperation(ends)]), width

        return NasBench1Shot1Supernet(*self._macro(self.channels, make_cell))

    def network(self, architecture: Architecture) -> Macro:
        """The stand-alone network."""
        taken = self._taken(architecture.operations)

        def make_cell(in_channels: int, channels: int) -> tuple[Cell, int]:
            operations = [block_operation(str(name), channels) for name in architecture.operations[: self.blocks]]
            inputs = [Sum([take(node, in_channels, channels) for node in nodes]) for nodes in taken[:-1]]
            width = len(taken[-1]) * channels
            ends = [
                Take(
                    node,
                    nn.Sequential(
                        projection(node, in_channels, channels), Place(i * channels, width - (i + 1) * channels)
                    ),
                )
                for i, node in enumerate(taken[-1])
            ]
            return Cell(operations, [*inputs, Sum(ends)]), width

        return Macro(*self._macro(self.network_channels, make_cell))

    def nasbench101(self, architecture: Architecture) -> tuple[list[list[int]], list[str]]:
        """The cell as NAS-Bench-101 is asked for it.

        Returns:
            Adjacency (row: from, column: to) of seven vertices and their operations. Cells of four blocks have an
            isolated vertex at index 5.
        """
        last = self.blocks + 1
        matrix = [[0] * 7 for _ in range(7)]
        for place, nodes in enumerate(self._taken(architecture.operations)):
            for node in nodes:
                matrix[node][6 if place == self.blocks else place + 1] = 1
        idle = [OPERATIONS[-1]] * (6 - last)
        return matrix, [INPUT, *map(str, architecture.operations[: self.blocks]), *idle, OUTPUT]

    def notation(self, operations: Sequence[Chosen]) -> str:
        """Each block's operation with its inputs, such as "maxpool3x3(input)|...|output(2,4)"."""
        names = [*operations[: self.blocks], OUTPUT]
        lists = [",".join(str(node) if node else INPUT for node in nodes) for nodes in self._taken(operations)]
        return "|".join(f"{name}({nodes})" for name, nodes in zip(names, lists, strict=True))

    def parse(self, notation: str) -> Architecture:
        """Read the notation."""
        found = [re.fullmatch(r"([\w-]+)\(([\w,]+)\)", part) for part in notation.split("|")]
        matches = [match for match in found if match]
        if len(matches) == len(found) == self.blocks + 1:
            inputs = [tuple(match[2].split(",")) for match in matches]
            chosen = [inputs[place] if self.parents[place] > 1 else inputs[place][0] for place in self.choosers]
            operations = (*(match[1] for match in matches[:-1]), *chosen)
            architecture = self.architecture(self.indices(operations))
            # What is not chosen must be written as it is.
            if architecture.notation == notation:
                return architecture
        raise InputError(
            f"'{notation[:200]}' is no architecture of this nasbench1shot1 space; write {self.blocks} blocks and the "
            "output with their inputs in rising order, such as maxpool3x3(input)|...|output(2,4)"
        )

    def parts(self) -> tuple[Sequence[Part], Sequence[Sequence[Sequence[Part]]]]:
        """Stem, classifier and projections without a choice; operations and chosen projections of all cells."""
        c, stem = self.network_channels, self.network_channels
        side = (self.input_shape[1], self.input_shape[2])
        shapes: list[tuple[tuple[int, int, int], int]] = []
        width = stem
        for position in range(STACKS * self.cells):
            if position and position % self.cells == 0:
                c, side = 2 * c, shrunk(side, 2)
            shapes.append(((width, *side), c))
            width = self.parents[-1] * c

        def operation(name: str) -> list[Part]:
            return [Part(name, lambda c=c: block_operation(name, c), (c, *shape[1:])) for shape, c in shapes]

        def projections(node: int) -> list[Part]:
            return [
                Part(f"projection to {c}", lambda i=shape[0], c=c: conv_bn(i, c), shape)
                for shape, c in shapes
                if node == 0
            ]

        fixed = [
            Part(f"stem to {stem}", lambda: conv_bn(self.input_shape[0], stem, 3), self.input_shape),
            Part(
                f"head of {self.num_classes} classes",
                lambda: nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, self.num_classes)),
                (width, *side),
            ),
            *(part for place in range(self.blocks) if place not in self.choosers for part in projections(0)),
        ]
        choosing = [[projections(node) for node in self._offered(place)] for place in self.choosers]
        return fixed, [*([operation(n) for n in slot.operations] for slot in self.slots[: self.blocks]), *choosing]

    def _macro(
        self, channels: int, make_cell: Callable[[int, int], tuple[Cell, int]]
    ) -> tuple[nn.Module, list[Cell], nn.Module]:
        stem, width = conv_bn(self.input_shape[0], channels, 3), channels
        cells = []
        for position in range(STACKS * self.cells):
            cell, width = make_cell(width, channels * 2 ** (position // self.cells))
            cells.append(cell)
        return stem, cells, nn.Linear(width, self.num_classes)

    def _title(self, place: int) -> str:
        return OUTPUT if place == self.blocks else f"block {place + 1}"

    def _offered(self, place: int) -> list[int]:
        """The nodes that a place may take, as numbers."""
        if place not in self.choosers:
            return list(range(place + 1))
        names = self.slots[self.blocks + self.choosers.index(place)].operations
        return [0 if name == INPUT else int(name) for name in names]

    def _taken(self, operations: Sequence[Chosen]) -> list[tuple[int, ...]]:
        """The nodes that each block and the output take, as numbers."""
        taken = [tuple(range(place + 1)) for place in range(len(self.parents))]
        for place, chosen in zip(self.choosers, operations[self.blocks :], strict=True):
            names = chosen if isinstance(chosen, tuple) else (chosen,)
            taken[place] = tuple(0 if name == INPUT else int(name) for name in names)
        return taken

    def _subsets(self, slot: int) -> Choices:
        """The legal choices of an input slot."""
        taken = self.parents[self.choosers[slot - self.blocks]]
        offered = range(len(self.slots[slot].operations))
        return tuple(offered) if taken == 1 else tuple(itertools.combinations(offered, taken))

    def _uses_every_block(self, choices: Choices) -> bool:
        """Whether each block's output goes somewhere; as inputs come from before, it then reaches the output."""
        names: list[Chosen] = []
        for slot, choice in zip(self.slots[self.blocks :], choices, strict=True):
            chosen = tuple(slot.operations[index] for index in (choice if isinstance(choice, tuple) else (choice,)))
            names.append(chosen)
        used = set(itertools.chain.from_iterable(self._taken([OPERATIONS[0]] * self.blocks + names)))
        return used >= set(range(1, self.blocks + 1))
