"""DARTS: a normal and a reduction cell, each node with two of the edges from what came before; also S1 to S4.

Source: Liu, Simonyan and Yang, "DARTS", arXiv:1806.09055; S1 to S4: Zela et al., "Understanding and Robustifying
Differentiable Architecture Search", arXiv:1909.09656. A supernet is smaller than the networks that its cells end up
in, so the space has a size for each; costs are those of the network.
"""

import copy
import functools
import itertools
from collections.abc import Mapping, Sequence
from typing import ClassVar

from torch import nn

from nas_core.errors import InputError
from nas_core.ops.cost import Part
from nas_core.ops.mixed import MixedOperation
from nas_core.ops.primitives import Subsample
from nas_core.search_spaces.base import Architecture, Choice, Chosen, Decision, SearchSpace, Slot, Supernet
from nas_core.search_spaces.darts_cells import (
    EDGES,
    INPUTS,
    Macro,
    MakeEdges,
    cell_operation,
    check_auxiliary,
    edge_stride,
    reduction_cells,
)
from nas_core.search_spaces.darts_subspaces import SUBSPACES
from nas_core.search_spaces.genotype import Genotype, Pairs, parse_genotype
from nas_core.settings.spaces import DartsSpaceSpec, Stem, Subspace, spaces

# A cell keeps this many of a node's incoming edges.
KEPT = 2
# Ignores what it is given.
NOISE = "noise"
# With fewer cells than these, all are reduction cells.
FEWEST_CELLS = 3


class DartsSupernet(Macro, Supernet):
    """The macro network with every allowed operation on every edge of every cell."""


@spaces.register(DartsSpaceSpec)
class DartsSpace(SearchSpace):
    """The DARTS space for images of any size.

    Args:
        subspace: "none", or "s1" to "s4".
        channels: Channels of a node in the supernet's first cells.
        cells: Cells of the supernet, at least three.
        network_channels: Channels of a node in the network's first cells.
        network_cells: Cells of the network, at least three.
        stem: "cifar" or "imagenet".
        input_shape: (channels, height, width) of the images.
        num_classes: Number of logits.

    Raises:
        InputError: If a size is too small.
    """

    name: ClassVar[str] = "darts"
    drops_paths: ClassVar[bool] = True

    def __init__(
        self,
        subspace: Subspace = "none",
        channels: int = 16,
        cells: int = 8,
        network_channels: int = 36,
        network_cells: int = 20,
        stem: Stem = "cifar",
        *,
        input_shape: tuple[int, int, int],
        num_classes: int,
    ) -> None:
        self.check_sizes(num_classes=num_classes, input_shape=min(input_shape))
        if min(cells, network_cells) < FEWEST_CELLS:
            raise InputError(
                f"search space 'darts': cells is {cells} and network_cells {network_cells}; both must be at least "
                f"{FEWEST_CELLS}, because of fewer all are reduction cells"
            )
        if min(channels, network_channels) < 2:
            raise InputError(
                f"search space 'darts': channels is {channels} and network_channels {network_channels}; both must be "
                "at least 2, because reductions are done by halves"
            )
        self.channels, self.cells = channels, cells
        self.network_channels, self.network_cells = network_channels, network_cells
        self.stem: Stem = stem
        self.input_shape, self.num_classes = input_shape, num_classes
        self.slots = tuple(
            Slot(f"{kind} {target}<-{source}", operations, group=f"{kind}/{target}")
            for kind, cell in zip(("normal", "reduce"), SUBSPACES[subspace], strict=True)
            for (target, source), operations in zip(EDGES, cell, strict=True)
        )

    @functools.cached_property
    def decisions(self) -> tuple[Decision, ...]:
        """Per node of each cell: two of its incoming edges, each with an operation that is not `none`."""
        found = []
        for cell, node in itertools.product(range(2), range(2, 6)):
            slots = tuple(cell * len(EDGES) + i for i, (target, _) in enumerate(EDGES) if target == node)
            real = {s: [i for i, op in enumerate(self.slots[s].operations) if op != "none"] for s in slots}
            options = [
                tuple(dict(zip(kept, picked, strict=True)).get(slot, ()) for slot in slots)
                for kept in itertools.combinations(slots, KEPT)
                for picked in itertools.product(*(real[slot] for slot in kept))
            ]
            found.append(Decision(slots, tuple(options)))
        return tuple(found)

    @functools.cached_property
    def connected(self) -> tuple[tuple[Decision, ...], ...]:
        """In S4, per node of either cell, the cells in which it takes an input of the cell and not noise in its place.

        A network with a cell of noise may see its images past that cell; it is left out all the same.
        """
        if not any(NOISE in slot.operations for slot in self.slots):
            return super().connected
        taking = [self._taking_an_input(decision) for decision in self.decisions]
        nodes = len(taking) // 2
        products = (
            tuple(taking[i] if i in pair else decision for i, decision in enumerate(self.decisions))
            for pair in itertools.product(range(nodes), range(nodes, 2 * nodes))
        )
        return tuple(decisions for decisions in products if all(decision.options for decision in decisions))

    def _taking_an_input(self, decision: Decision) -> Decision:
        """The options of a node with an edge from an input of its cell that is not noise."""

        def takes(slot: int, choice: Choice) -> bool:
            from_input = EDGES[slot % len(EDGES)][1] < INPUTS
            return from_input and isinstance(choice, int) and self.slots[slot].operations[choice] != NOISE

        return Decision(decision.slots, tuple(o for o in decision.options if any(map(takes, decision.slots, o))))

    def deepened(self, cells: int) -> "DartsSpace":
        """So many more cells in the supernet; networks, and so their costs, stay as they are."""
        deeper = copy.copy(self)
        deeper.cells = self.cells + cells
        return deeper

    def supernet(self, *, partial: int = 1) -> DartsSupernet:
        """A supernet; each edge holds its slot's operations."""
        self.check_partial(partial, self.channels)

        def make_edges(reduction: bool, channels: int) -> Mapping[int, nn.Module]:
            slots = self.slots[len(EDGES) :] if reduction else self.slots[: len(EDGES)]
            return {
                edge: MixedOperation(
                    [
                        cell_operation(name, channels // partial, edge_stride(edge, reduction), search=True)
                        for name in slot.operations
                    ],
                    partial,
                )
                for edge, slot in enumerate(slots)
            }

        return DartsSupernet(
            self.input_shape[0], self.channels, self.cells, self.num_classes, self.stem, make_edges, search=True
        )

    def network(self, architecture: Architecture) -> Macro:
        """The network of the evaluation phase."""

        def make_edges(reduction: bool, channels: int) -> Mapping[int, nn.Module]:
            first = len(EDGES) if reduction else 0
            chosen = architecture.operations[first : first + len(EDGES)]
            return {
                edge: cell_operation(name, channels, edge_stride(edge, reduction), search=False)
                for edge, name in enumerate(chosen)
                if isinstance(name, str)
            }

        return self._macro(make_edges)

    def check_auxiliary(self) -> None:
        """Refuse images that are too small for the second classifier."""
        check_auxiliary(self.input_shape, self.network_cells, self.stem)

    def notation(self, operations: Sequence[Chosen]) -> str:
        """The field's Genotype; an edge that is left out is not in it."""

        def pairs(cell: Sequence[Chosen]) -> Pairs:
            return tuple((op, source) for op, (_, source) in zip(cell, EDGES, strict=True) if isinstance(op, str))

        return str(Genotype(pairs(operations[: len(EDGES)]), pairs(operations[len(EDGES) :])))

    def parse(self, notation: str) -> Architecture:
        """Read a Genotype."""
        genotype = parse_genotype(notation)
        operations: list[Chosen] = []
        for pairs in (genotype.normal, genotype.reduce):
            chosen = {(2 + position // KEPT, source): op for position, (op, source) in enumerate(pairs)}
            operations += [chosen.get(edge, ()) for edge in EDGES]
        return self.architecture(self.indices(operations))

    def parts(self) -> tuple[Sequence[Part], Sequence[Sequence[Sequence[Part]]]]:
        """The network without its edges, and each edge's operation in all cells of its kind."""
        halvings = 3 if self.stem == "imagenet" else 0
        reductions = reduction_cells(self.network_cells)
        inputs: dict[bool, list[tuple[int, int, int]]] = {False: [], True: []}
        channels = self.network_channels
        for position in range(self.network_cells):
            reduction = position in reductions
            channels *= 2 if reduction else 1
            inputs[reduction].append((channels, *self._side(halvings)))
            halvings += int(reduction)

        def everywhere(name: str, edge: int, reduction: bool) -> list[Part]:
            stride = edge_stride(edge, reduction)
            shrink = 2 if reduction and stride == 1 else 1
            shapes = [(c, -(-h // shrink), -(-w // shrink)) for c, h, w in inputs[reduction]]
            return [
                Part(f"{name} stride {stride}", lambda c=shape[0]: cell_operation(name, c, stride, False), shape)
                for shape in shapes
            ]

        kind = (
            f"skeleton of {self.network_cells} cells, {self.network_channels} channels, {self.stem} stem, "
            f"{self.num_classes} classes"
        )
        skeleton = Part(kind, lambda: self._macro(bare_edges), self.input_shape)
        return [skeleton], [
            [everywhere(name, index % len(EDGES), index >= len(EDGES)) for name in slot.operations]
            for index, slot in enumerate(self.slots)
        ]

    def _macro(self, make_edges: MakeEdges) -> Macro:
        """A network of the evaluation phase with any edges."""
        return Macro(
            self.input_shape[0],
            self.network_channels,
            self.network_cells,
            self.num_classes,
            self.stem,
            make_edges,
            search=False,
        )

    def _side(self, halvings: int) -> tuple[int, int]:
        _, height, width = self.input_shape
        return -(-height // 2**halvings), -(-width // 2**halvings)


def bare_edges(reduction: bool, _channels: int) -> Mapping[int, nn.Module]:
    """The edges of a cell without operations: two per node, as many as networks keep, that only give it its shape."""
    return {
        edge: nn.Identity() if edge_stride(edge, reduction) == 1 else Subsample(2)
        for edge, (_, source) in enumerate(EDGES)
        if source < INPUTS
    }
