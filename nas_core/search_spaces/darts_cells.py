"""Building blocks of DARTS networks: operations, cells, and everything around them, for supernets and networks alike.

Source: Liu, Simonyan and Yang, "DARTS", arXiv:1806.09055, and its reference code.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from nas_core.errors import InputError
from nas_core.ops.mixed import Gates, left_out
from nas_core.ops.primitives import EndingInNorm, Zero, average_pool, conv_bn, relu_conv_bn
from nas_core.ops.stochastic import DropPath, Noise, SeededForward
from nas_core.settings.spaces import Stem

OperationName = Literal[
    "none",
    "max_pool_3x3",
    "avg_pool_3x3",
    "skip_connect",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "dil_conv_3x3",
    "dil_conv_5x5",
    "noise",
]
# "noise" belongs to S4 alone.
OPERATIONS: tuple[OperationName, ...] = get_args(OperationName)[:-1]

INPUTS, NODES = 2, 4
# (target, source) of each edge of a cell, in the order of the slots: 0 and 1 are the outputs of the two cells before.
EDGES = tuple((target, source) for target in range(INPUTS, INPUTS + NODES) for source in range(target))


class FactorizedReduce(nn.Module):
    """Halves height and width (odd ones rounded up) by two strided convolutions, one of them shifted by a pixel.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output, at least 2; each convolution makes half of them.
        affine: Whether BatchNorm learns a scale and a shift.
    """

    def __init__(self, in_channels: int, out_channels: int, affine: bool) -> None:
        super().__init__()
        half = out_channels // 2
        self.relu = nn.ReLU()
        self.even = nn.Conv2d(in_channels, half, 1, stride=2, bias=False)
        self.odd = nn.Conv2d(in_channels, out_channels - half, 1, stride=2, bias=False)
        self.norm = nn.BatchNorm2d(out_channels, affine=affine)

    def forward(
        self, x: Float[Tensor, "batch in_channels height width"]
    ) -> Float[Tensor, "batch out_channels half_height half_width"]:
        """ReLU, both convolutions side by side, BatchNorm."""
        x = self.relu(x)
        # The padding is read for odd sides only, where the shifted map would otherwise be a pixel smaller.
        shifted = functional.pad(x[:, :, 1:, 1:], (0, 1, 0, 1))
        return self.norm(torch.cat([self.even(x), self.odd(shifted)], dim=1))


def separable(channels: int, kernel_size: int, stride: int, affine: bool, dilation: int = 1) -> list[nn.Module]:
    """ReLU, depthwise convolution, 1 x 1 convolution, BatchNorm.

    Args:
        channels: Channels of input and output.
        kernel_size: Side of the depthwise kernel, odd.
        stride: Step in pixels.
        affine: Whether BatchNorm learns a scale and a shift.
        dilation: Distance of the kernel's taps in pixels.
    """
    padding = dilation * (kernel_size // 2)
    return [
        nn.ReLU(),
        nn.Conv2d(channels, channels, kernel_size, stride, padding, dilation, groups=channels, bias=False),
        nn.Conv2d(channels, channels, 1, bias=False),
        nn.BatchNorm2d(channels, affine=affine),
    ]


def separable_twice(channels: int, kernel_size: int, stride: int, affine: bool) -> EndingInNorm:
    """Two separable convolutions in a row; the first has the stride."""
    return EndingInNorm(*separable(channels, kernel_size, stride, affine), *separable(channels, kernel_size, 1, affine))


def cell_operation(name: str, channels: int, stride: int, search: bool) -> nn.Module:
    """An operation of an edge.

    Args:
        name: One of `OPERATIONS`, or "noise".
        channels: Channels of input and output.
        stride: Step in pixels, 1 or 2.
        search: Whether it is for a supernet, where BatchNorm has no scale and shift and follows pooling too.
    """
    affine = not search
    makers: dict[str, Callable[[], nn.Module]] = {
        "none": lambda: Zero(stride),
        "max_pool_3x3": lambda: nn.MaxPool2d(3, stride, padding=1),
        "avg_pool_3x3": lambda: average_pool(3, stride),
        "skip_connect": lambda: nn.Identity() if stride == 1 else FactorizedReduce(channels, channels, affine),
        "sep_conv_3x3": lambda: separable_twice(channels, 3, stride, affine),
        "sep_conv_5x5": lambda: separable_twice(channels, 5, stride, affine),
        "dil_conv_3x3": lambda: EndingInNorm(*separable(channels, 3, stride, affine, dilation=2)),
        "dil_conv_5x5": lambda: EndingInNorm(*separable(channels, 5, stride, affine, dilation=2)),
        "noise": lambda: Noise(stride),
    }
    operation = makers[name]()
    pools = name in ("max_pool_3x3", "avg_pool_3x3")
    return EndingInNorm(operation, nn.BatchNorm2d(channels, affine=False)) if search and pools else operation


class Cell(nn.Module):
    """Two inputs, four nodes that sum their incoming edges, and the nodes side by side as output.

    Args:
        preprocess: Bring the outputs of the cell before the last and of the last one to the cell's shape.
        edges: By index into `EDGES`, the operations of the edges that the cell has, or a `MixedOperation` for each.
    """

    def __init__(self, preprocess: Sequence[nn.Module], edges: Mapping[int, nn.Module]) -> None:
        super().__init__()
        self.preprocess = nn.ModuleList(preprocess)
        self.edges = nn.ModuleDict({str(index): edge for index, edge in edges.items()})
        self.drop_path = DropPath()

    def forward(
        self,
        before_last: Float[Tensor, "batch channels_0 height_0 width_0"],
        last: Float[Tensor, "batch channels_1 height_1 width_1"],
        gates: Gates | None = None,
    ) -> Float[Tensor, "batch out_channels height width"]:
        """The four nodes' channels, under one gate per edge of `EDGES` if the edges are mixed."""
        states = [module(x) for module, x in zip(self.preprocess, (before_last, last), strict=True)]
        for node in range(2, 2 + NODES):
            messages = [
                self._message(index, states[source], gates)
                for index, (target, source) in enumerate(EDGES)
                if target == node and str(index) in self.edges and (gates is None or not left_out(gates[index]))
            ]
            states.append(functools.reduce(torch.add, messages))
        return torch.cat(states[2:], dim=1)

    def _message(self, index: int, x: Tensor, gates: Gates | None) -> Tensor:
        edge = self.edges[str(index)]
        message = edge(x) if gates is None else edge(x, gates[index])
        return message if isinstance(edge, nn.Identity) else self.drop_path(message)


# Makes the edges of a cell: (reduction, channels) -> operation by index into EDGES.
MakeEdges = Callable[[bool, int], Mapping[int, nn.Module]]


def reduction_cells(cells: int) -> set[int]:
    """Positions of the reduction cells: at one and two thirds of the depth."""
    return {cells // 3, 2 * cells // 3}


def edge_stride(edge: int, reduction: bool) -> int:
    """Step of an edge: reduction cells halve the map on the edges that leave the cell's inputs."""
    return 2 if reduction and EDGES[edge][1] < INPUTS else 1


class Macro(SeededForward):
    """Everything around the cells: stem, preprocessing, and head.

    Args:
        in_channels: Channels of the images.
        channels: Channels of a node in the first cells; they double in each reduction cell.
        cells: Number of cells.
        num_classes: Number of logits.
        stem: "cifar" keeps the images' size, "imagenet" takes an eighth of it.
        make_edges: Makes the edges of a cell.
        search: Whether it is a supernet, whose BatchNorm layers after the stem have no scale and shift.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        cells: int,
        num_classes: int,
        stem: Stem,
        make_edges: MakeEdges,
        search: bool,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.stem_kind: Stem = stem
        self.stem = cifar_stem(in_channels, channels) if stem == "cifar" else imagenet_stem(in_channels, channels)
        before_last = last = 3 * channels if stem == "cifar" else channels
        shrunk = stem == "imagenet"
        self.cells = nn.ModuleList()
        # A second classifier of training sees the output of the second reduction cell.
        self.features_after = 2 * cells // 3
        for position in range(cells):
            reduction = position in reduction_cells(cells)
            channels *= 2 if reduction else 1
            preprocess = [
                FactorizedReduce(before_last, channels, affine=not search)
                if shrunk
                else relu_conv_bn(before_last, channels, 1, affine=not search),
                relu_conv_bn(last, channels, 1, affine=not search),
            ]
            self.cells.append(Cell(preprocess, make_edges(reduction, channels)))
            before_last, last, shrunk = last, NODES * channels, reduction
            if position == self.features_after:
                self.feature_channels = last
        self.classifier = nn.Linear(last, num_classes)

    def forward(
        self, x: Float[Tensor, "batch channels height width"], gates: Gates | None = None
    ) -> Float[Tensor, "batch classes"]:
        """Logits of normalised images; gates are those of the normal cells' edges, then of the reduction cells'."""
        return self._logits(x, gates)[0]

    def with_features(
        self, x: Float[Tensor, "batch channels height width"]
    ) -> tuple[Float[Tensor, "batch classes"], Float[Tensor, "batch features feature_height feature_width"]]:
        """Logits, and what a second classifier sees."""
        return self._logits(x, None)

    def auxiliary_classifier(self) -> nn.Module:
        """A new second classifier: from the features to logits."""
        return auxiliary_head(self.feature_channels, self.num_classes, self.stem_kind)

    def _logits(self, x: Tensor, gates: Gates | None) -> tuple[Tensor, Tensor]:
        """Logits, and the output of the cell that a second classifier follows."""
        before_last = self.stem[0](x)
        last = features = before_last if len(self.stem) == 1 else self.stem[1](before_last)
        for position, cell in enumerate(self.cells):
            first = len(EDGES) if position in reduction_cells(len(self.cells)) else 0
            own = None if gates is None else gates[first : first + len(EDGES)]
            before_last, last = last, cell(before_last, last, own)
            if position == self.features_after:
                features = last
        return self.classifier(last.mean(dim=(2, 3))), features


def cifar_stem(in_channels: int, channels: int) -> nn.ModuleList:
    """One convolution to 3 x channels, whose output is both inputs of the first cell."""
    return nn.ModuleList([conv_bn(in_channels, 3 * channels, 3, activation=None)])


def imagenet_stem(in_channels: int, channels: int) -> nn.ModuleList:
    """Three strided convolutions; the maps after two and after three of them are the inputs of the first cell."""
    quarter = nn.Sequential(
        conv_bn(in_channels, channels // 2, 3, stride=2),
        conv_bn(channels // 2, channels, 3, stride=2, activation=None),
    )
    return nn.ModuleList([quarter, relu_conv_bn(channels, channels, 3, stride=2)])


def auxiliary_head(channels: int, num_classes: int, stem: Stem) -> nn.Sequential:
    """The second classifier of the reference code; maps other than its 2 x 2 are averaged at the end.

    Args:
        channels: Channels of the features, whose map must be at least `auxiliary_side` pixels high and wide.
        num_classes: Number of logits.
        stem: Decides the pooling's step; the ImageNet head has no second BatchNorm, like the reference code.
    """
    return nn.Sequential(
        nn.ReLU(),
        nn.AvgPool2d(5, stride=3 if stem == "cifar" else 2, count_include_pad=False),
        conv_bn(channels, 128),
        nn.Conv2d(128, 768, 2, bias=False),
        *([nn.BatchNorm2d(768)] if stem == "cifar" else []),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(768, num_classes),
    )


def check_auxiliary(input_shape: tuple[int, int, int], cells: int, stem: Stem) -> None:
    """Refuse images whose map at the second classifier is too small for its pooling and 2 x 2 kernel."""
    halvings = len(reduction_cells(cells)) + (3 if stem == "imagenet" else 0)
    side = (8 if stem == "cifar" else 7) - 1
    smallest = side * 2**halvings + 1
    if min(input_shape[1:]) < smallest:
        raise InputError(
            f"the auxiliary classifier of search space 'darts' needs images of at least {smallest} x {smallest} pixels "
            f"with this stem and number of cells, and these are {input_shape[1]} x {input_shape[2]}; "
            "set retrain.auxiliary_weight to 0"
        )
