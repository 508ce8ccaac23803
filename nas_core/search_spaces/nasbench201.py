"""NAS-Bench-201: one cell of four nodes, an operation on each of its six edges, 15,625 architectures.

Source: Dong and Yang, "NAS-Bench-201", arXiv:2001.00326, and its reference code. In the supernet only the cells'
BatchNorm layers lack scale and shift; stem, residual blocks and head are the stand-alone network's.
"""

import copy
import functools
import re
from collections.abc import Callable, Sequence
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from nas_core.errors import InputError
from nas_core.ops.cost import Part
from nas_core.ops.mixed import Gates, MixedOperation
from nas_core.ops.primitives import Zero, average_pool, relu_conv_bn
from nas_core.search_spaces.base import Architecture, Chosen, Decision, SearchSpace, Slot, Supernet
from nas_core.settings.spaces import NASBENCH201_OPERATIONS as OPERATIONS
from nas_core.settings.spaces import NasBench201Spec, spaces

# (target, source) of each edge, in the order of the slots.
EDGES = ((1, 0), (2, 0), (2, 1), (3, 0), (3, 1), (3, 2))
# The ways from the cell's input to its output, as indices of edges.
WAYS = ((3,), (0, 4), (1, 5), (0, 2, 5))
NONE = OPERATIONS[0]


def cell_operation(name: str, channels: int, affine: bool) -> nn.Module:
    """An operation of an edge, which keeps the shape.

    Args:
        name: One of `OPERATIONS`.
        channels: Channels of input and output.
        affine: Whether BatchNorm learns a scale and a shift.
    """
    makers: dict[str, Callable[[], nn.Module]] = {
        "none": Zero,
        "skip_connect": nn.Identity,
        "nor_conv_1x1": lambda: relu_conv_bn(channels, channels, 1, affine=affine),
        "nor_conv_3x3": lambda: relu_conv_bn(channels, channels, 3, affine=affine),
        "avg_pool_3x3": lambda: average_pool(3),
    }
    return makers[name]()


class Cell(nn.Module):
    """Four nodes; a node is the sum of its incoming edges, and the last one is the output.

    Args:
        edges: One module per entry of `EDGES`: an operation, or a `MixedOperation` to be called with a gate.
    """

    def __init__(self, edges: Sequence[nn.Module]) -> None:
        super().__init__()
        self.edges = nn.ModuleList(edges)

    def forward(
        self, x: Float[Tensor, "batch channels height width"], gates: Gates | None = None
    ) -> Float[Tensor, "batch channels height width"]:
        """Output of the last node, under one gate per edge if the edges are mixed."""
        nodes = [x]
        for index, (target, source) in enumerate(EDGES):
            gate = () if gates is None else (gates[index],)
            message = self.edges[index](nodes[source], *gate)
            if target == len(nodes):
                nodes.append(message)
            else:
                nodes[target] = nodes[target] + message
        return nodes[-1]


class ResidualBlock(nn.Module):
    """Halves height and width (odd ones rounded up) between two stages.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(
            relu_conv_bn(in_channels, out_channels, 3, stride=2), relu_conv_bn(out_channels, out_channels, 3)
        )
        self.shortcut = nn.Sequential(
            # ceil_mode changes nothing for even sides and lets odd ones meet the strided convolution's size.
            nn.AvgPool2d(2, stride=2, ceil_mode=True),
            nn.Conv2d(in_channels, out_channels, 1, bias=False),
        )

    def forward(
        self, x: Float[Tensor, "batch in_channels height width"]
    ) -> Float[Tensor, "batch out_channels half_height half_width"]:
        """Sum of the two branches."""
        return self.shortcut(x) + self.convolutions(x)


class Macro(nn.Module):
    """Everything around the cells: stem, three stages with residual blocks between them, head.

    Args:
        in_channels: Channels of the images.
        channels: Channels of the first stage; they double from stage to stage.
        cells: Cells per stage.
        num_classes: Number of logits.
        make_cell: Makes a cell of a given number of channels.
    """

    def __init__(
        self, in_channels: int, channels: int, cells: int, num_classes: int, make_cell: Callable[[int], nn.Module]
    ) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(in_channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels))
        self.body = nn.ModuleList(make_cell(channels) for _ in range(cells))
        for width in (2 * channels, 4 * channels):
            self.body.append(ResidualBlock(width // 2, width))
            self.body.extend(make_cell(width) for _ in range(cells))
        self.activation = nn.Sequential(nn.BatchNorm2d(4 * channels), nn.ReLU())
        self.classifier = nn.Linear(4 * channels, num_classes)

    def forward(
        self, x: Float[Tensor, "batch channels height width"], gates: Gates | None = None
    ) -> Float[Tensor, "batch classes"]:
        """Logits of normalised images; every cell gets the same gates."""
        x = self.stem(x)
        for block in self.body:
            x = block(x, gates) if isinstance(block, Cell) else block(x)
        return self.classifier(self.activation(x).mean(dim=(2, 3)))


class NasBench201Supernet(Macro, Supernet):
    """The macro network with every allowed operation on every edge; called with one gate per edge."""


@spaces.register(NasBench201Spec)
class NasBench201(SearchSpace):
    """The NAS-Bench-201 space for images of any size.

    Args:
        channels: Channels of the first stage.
        cells: Cells per stage.
        operations: Names of the operations that every edge may choose from.
        input_shape: (channels, height, width) of the images.
        num_classes: Number of logits.

    Raises:
        InputError: If a size is not positive, an operation is unknown, or there is none beside `none`.
    """

    name: ClassVar[str] = "nasbench201"

    def __init__(
        self,
        channels: int = 16,
        cells: int = 5,
        operations: Sequence[str] = OPERATIONS,
        *,
        input_shape: tuple[int, int, int],
        num_classes: int,
    ) -> None:
        self.check_sizes(channels=channels, cells=cells, num_classes=num_classes, input_shape=min(input_shape))
        self.channels, self.cells = channels, cells
        self.input_shape, self.num_classes = input_shape, num_classes
        every = tuple(Slot(f"{target}<-{source}", OPERATIONS, group=f"cell/{target}") for target, source in EDGES)
        self.slots = self.restricted_slots(every, dict.fromkeys(range(len(EDGES)), operations))
        if not self.connected:
            raise InputError(
                "search space 'nasbench201': with `none` alone no network sees its input; allow more operations"
            )

    @functools.cached_property
    def connected(self) -> tuple[tuple[Decision, ...], ...]:
        """Per way from input to output, the cells without `none` on it."""

        def passing(way: tuple[int, ...]) -> tuple[Decision, ...]:
            return tuple(
                Decision(
                    (index,),
                    tuple((i,) for i, name in enumerate(slot.operations) if name != NONE or index not in way),
                )
                for index, slot in enumerate(self.slots)
            )

        ways = map(passing, WAYS)
        return tuple(decisions for decisions in ways if all(decision.options for decision in decisions))

    def supernet(self, *, partial: int = 1) -> NasBench201Supernet:
        """A supernet; each edge holds its slot's operations."""
        self.check_partial(partial, self.channels)

        def make_cell(width: int) -> Cell:
            return Cell(
                [
                    MixedOperation(
                        [cell_operation(name, width // partial, affine=False) for name in slot.operations], partial
                    )
                    for slot in self.slots
                ]
            )

        return NasBench201Supernet(self.input_shape[0], self.channels, self.cells, self.num_classes, make_cell)

    def deepened(self, cells: int) -> "NasBench201":
        """Spread over the three stages, rounded up to the same number in each."""
        deeper = copy.copy(self)
        # What `restrict` copies is computed for this depth.
        vars(deeper).pop("macs_table", None)
        deeper.cells = self.cells + -(-cells // 3)
        return deeper

    def network(self, architecture: Architecture) -> Macro:
        """The benchmark's stand-alone network."""
        return self._macro(
            lambda width: Cell([cell_operation(str(name), width, affine=True) for name in architecture.operations])
        )

    def notation(self, operations: Sequence[Chosen]) -> str:
        """The benchmark's string, such as "|op~0|+|op~0|op~1|+|op~0|op~1|op~2|"."""
        nodes = [
            "".join(f"|{name}~{source}" for name, (to, source) in zip(operations, EDGES, strict=True) if to == target)
            for target in (1, 2, 3)
        ]
        return "+".join(f"{node}|" for node in nodes)

    def parse(self, notation: str) -> Architecture:
        """Read the benchmark's string."""
        operations = re.findall(r"\|(\w+)~", notation)
        if len(operations) != len(EDGES) or self.notation(operations) != notation:
            example = self.notation(["skip_connect"] * len(EDGES))
            raise InputError(f"'{notation}' is no architecture of nasbench201; write it like '{example}'")
        return self.architecture(self.indices(operations))

    def parts(self) -> tuple[Sequence[Part], Sequence[Sequence[Sequence[Part]]]]:
        """The network without its cells; an edge's operation is in every cell of every stage."""
        _, height, width = self.input_shape
        stages = [(self.channels * 2**i, -(-height // 2**i), -(-width // 2**i)) for i in range(3)]

        def everywhere(name: str) -> list[Part]:
            return [
                Part(name, lambda width=shape[0]: cell_operation(name, width, affine=True), shape, self.cells)
                for shape in stages
            ]

        kind = f"skeleton of {self.cells} cells per stage, {self.channels} channels, {self.num_classes} classes"
        skeleton = Part(kind, lambda: self._macro(lambda _: nn.Identity()), self.input_shape)
        return [skeleton], [[everywhere(name) for name in slot.operations] for slot in self.slots]

    def _macro(self, make_cell: Callable[[int], nn.Module]) -> Macro:
        return Macro(self.input_shape[0], self.channels, self.cells, self.num_classes, make_cell)
