"""The ShuffleNetV2 space of Single Path One-Shot: a row of blocks, each with three kernel sizes or an Xception branch.

Source: Guo et al., "Single Path One-Shot Neural Architecture Search with Uniform Sampling", arXiv:1904.00420, and its
reference code. There images have 224 pixels; `strides` makes the space fit smaller ones. With `channel_factors` an
operation of a block is a kind and a width together (their "channel number search"): one choice per block, so that no
strategy needs to know, and one set of weights per kind, of which each width takes the leading channels.
"""

import itertools
import re
from collections.abc import Iterator, Sequence
from typing import ClassVar

from torch import nn

from nas_core.errors import InputError
from nas_core.ops.cost import Part
from nas_core.ops.mixed import MixedOperation
from nas_core.ops.primitives import conv_bn
from nas_core.ops.stochastic import Dropout
from nas_core.search_spaces.base import Architecture, Chosen, SearchSpace, Slot, Supernet
from nas_core.search_spaces.rows import BlockRow, check_strides, shrunk
from nas_core.search_spaces.shufflenet_blocks import KINDS, Block, Operation, Place, shared_blocks
from nas_core.settings.spaces import ShuffleNetSpec, spaces

STEM_CHANNELS, HEAD_CHANNELS = 16, 1024


class ShuffleNetSupernet(BlockRow, Supernet):
    """The macro network with every allowed operation in every block; called with one gate per block."""


@spaces.register(ShuffleNetSpec)
class ShuffleNet(SearchSpace):
    """The space of ShuffleNetV2 blocks.

    Args:
        stage_blocks: Blocks of each stage.
        stage_channels: Channels of each stage, even; more than in the stage before.
        strides: Step of the stem and of each stage.
        dropout: Rate of dropped features before the classifier.
        channel_factors: Factors on the inner channels of a block, growing, to choose from.
        input_shape: (channels, height, width) of the images.
        num_classes: Number of logits.

    Raises:
        InputError: If the lists differ in length, a size is not positive, a block would be left without inner channels,
            or the images are smaller than the strides.
    """

    name: ClassVar[str] = "shufflenet"

    def __init__(
        self,
        stage_blocks: Sequence[int] = (4, 4, 8, 4),
        stage_channels: Sequence[int] = (64, 160, 320, 640),
        strides: Sequence[int] = (2, 2, 2, 2, 2),
        dropout: float = 0.1,
        channel_factors: Sequence[float] = (1.0,),
        *,
        input_shape: tuple[int, int, int],
        num_classes: int,
    ) -> None:
        self.check_sizes(num_classes=num_classes, input_shape=min(input_shape))
        if not len(stage_blocks) == len(stage_channels) == len(strides) - 1:
            raise InputError(
                "search space 'shufflenet': stage_blocks and stage_channels must have one number per stage and "
                f"strides one more, for the stem; they have {len(stage_blocks)}, {len(stage_channels)}, {len(strides)}"
            )
        for before, after in itertools.pairwise((STEM_CHANNELS, *stage_channels)):
            if after % 2 or after <= before:
                raise InputError(
                    f"search space 'shufflenet': stage_channels must be even and grow from {STEM_CHANNELS}; "
                    f"{after} after {before} does not"
                )
        check_strides(self.name, input_shape, strides)
        self.stage_blocks, self.stage_channels = tuple(stage_blocks), tuple(stage_channels)
        self.strides, self.dropout = tuple(strides), dropout
        self.input_shape, self.num_classes = input_shape, num_classes
        self.channel_factors = tuple(map(float, channel_factors))
        operations = [Operation(kind, factor) for kind in KINDS for factor in self.channel_factors]
        if min(operation.middle(stage_channels[0]) for operation in operations) < 1:
            raise InputError(
                f"search space 'shufflenet': channel_factors of {min(self.channel_factors):g} leave a block of "
                f"{stage_channels[0]} channels without any inside; take larger ones"
            )
        names = tuple(map(str, operations))
        self.slots = tuple(Slot(f"block {index}", names) for index in range(sum(stage_blocks)))

    def supernet(self, *, partial: int = 1) -> ShuffleNetSupernet:
        """A supernet, whose BatchNorm layers have no scale and shift."""
        self.check_partial(partial)
        return ShuffleNetSupernet(
            self._stem(affine=False),
            [
                MixedOperation(shared_blocks([Operation.parse(name) for name in slot.operations], place))
                for slot, place in zip(self.slots, self._places(), strict=True)
            ],
            self._head(affine=False),
        )

    def network(self, architecture: Architecture) -> BlockRow:
        """The stand-alone network."""
        chosen = zip(architecture.operations, self._places(), strict=True)
        blocks = [Block(Operation.parse(str(name)), place, affine=True) for name, place in chosen]
        return BlockRow(self._stem(affine=True), blocks, self._head(affine=True))

    def notation(self, operations: Sequence[Chosen]) -> str:
        """The reference code's list of indices into `KINDS`, such as "2,1,0"; factors follow if any is not 1.

        As in "2,1,0;0.6,1,1.2". Published codes write factors as indices too, which mean nothing without their list.
        """
        chosen = [Operation.parse(str(name)) for name in operations]
        kinds = ",".join(str(KINDS.index(operation.kind)) for operation in chosen)
        factors = ",".join(f"{operation.factor:g}" for operation in chosen)
        return kinds if {operation.factor for operation in chosen} == {1.0} else f"{kinds};{factors}"

    def parse(self, notation: str) -> Architecture:
        """Read a list of indices, and of factors if there is one; brackets and spaces do not matter."""
        bare = re.sub(r"[\[\]\s]", "", notation)
        kinds, semicolon, factors = bare.partition(";")
        found = kinds.split(",")
        widths = factors.split(",") if semicolon else ["1"] * len(found)
        if (
            len(found) != len(self.slots)
            or len(widths) != len(found)
            or not all(re.fullmatch("[0-3]", kind) for kind in found)
            or not all(re.fullmatch(r"\d{1,3}(\.\d{1,6})?", width) for width in widths)
        ):
            raise InputError(
                f"'{notation[:200]}' is no architecture of shufflenet; write {len(self.slots)} numbers from 0 to 3, "
                "such as 2,1,0,..., and with channel search after a semicolon as many factors"
            )
        chosen = [Operation(KINDS[int(kind)], float(width)) for kind, width in zip(found, widths, strict=True)]
        return self.architecture(self.indices([str(operation) for operation in chosen]))

    def parts(self) -> tuple[Sequence[Part], Sequence[Sequence[Sequence[Part]]]]:
        """Stem, head and blocks."""
        *_, last = self._places()
        head = (last.out_channels, *shrunk(last.input_shape[1:], last.stride))
        fixed = [
            Part(f"stem stride {self.strides[0]}", lambda: self._stem(affine=True), self.input_shape),
            Part(f"head of {self.num_classes} classes", lambda: self._head(affine=True), head),
        ]
        return fixed, [
            [[self._part(name, place)] for name in slot.operations]
            for slot, place in zip(self.slots, self._places(), strict=True)
        ]

    def _part(self, name: str, place: Place) -> Part:
        kind = f"{name} to {place.out_channels} stride {place.stride}"
        return Part(kind, lambda: Block(Operation.parse(name), place, affine=True), place.input_shape)

    def _places(self) -> Iterator[Place]:
        """Where each block sits, from the first to the last."""
        channels, side = STEM_CHANNELS, shrunk(self.input_shape[1:], self.strides[0])
        for blocks, width, stride in zip(self.stage_blocks, self.stage_channels, self.strides[1:], strict=True):
            for position in range(blocks):
                place = Place(channels, width, stride if position == 0 else 1, (channels, *side))
                yield place
                channels, side = width, shrunk(side, place.stride)

    def _stem(self, affine: bool) -> nn.Module:
        return conv_bn(self.input_shape[0], STEM_CHANNELS, 3, self.strides[0], affine=affine)

    def _head(self, affine: bool) -> nn.Module:
        return nn.Sequential(
            conv_bn(self.stage_channels[-1], HEAD_CHANNELS, affine=affine),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            Dropout(self.dropout),
            nn.Linear(HEAD_CHANNELS, self.num_classes, bias=False),
        )
