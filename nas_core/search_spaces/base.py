"""What every search space offers, and the architecture as a value.

The space owns operations, the strategy owns gates: a supernet is called as `supernet(x, gates)` with one gate
per choice slot, and a gate is either an index (that operation runs, nothing else is computed) or a vector of
weights (a mixture of all operations of the slot).
"""

import abc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, TypeAlias

import torch
from torch import Tensor, nn

from nas_core.registry import Registry

Gate: TypeAlias = int | Tensor
Gates: TypeAlias = Sequence[Gate]


@dataclass(frozen=True)
class Slot:
    """One choice of a space.

    Attributes:
        name: What the choice is, such as "1<-0" for the edge from node 0 to node 1.
        operations: Names of the operations to choose from; a gate's index counts in this order.
    """

    name: str
    operations: tuple[str, ...]


@dataclass(frozen=True)
class Architecture:
    """One operation per slot of a space: hashable, printable in the field's own notation, and JSON (the notation).

    Attributes:
        operations: The chosen operation of each slot, by name, so that it means the same in a restricted space.
        notation: The field's own way of writing it; `SearchSpace.parse` reads it back.
    """

    operations: tuple[str, ...]
    notation: str

    def __str__(self) -> str:
        """The notation."""
        return self.notation


class Supernet(nn.Module, abc.ABC):
    """A network that holds every operation of every slot."""

    @abc.abstractmethod
    def forward(self, x: Tensor, gates: Gates) -> Tensor:
        """Logits of normalised images `x` (batch, channels, height, width) under one gate per slot."""


class SearchSpace(abc.ABC):
    """A set of architectures with a supernet that shares their weights.

    Args of every registered space (beside its own spec): `input_shape` (channels, height, width), `num_classes`.
    Constructors raise InputError for an input that the space cannot take.
    """

    name: ClassVar[str]
    slots: tuple[Slot, ...]
    input_shape: tuple[int, int, int]
    num_classes: int

    @abc.abstractmethod
    def supernet(self) -> Supernet:
        """A new supernet with the operations that the slots allow."""

    @abc.abstractmethod
    def network(self, architecture: Architecture) -> nn.Module:
        """A new stand-alone network of an architecture."""

    @abc.abstractmethod
    def architecture(self, choices: Sequence[int]) -> Architecture:
        """The architecture with the given operation index in each slot."""

    @abc.abstractmethod
    def parse(self, notation: str) -> Architecture:
        """Read an architecture's notation. Raises InputError if it is none of this space's."""

    @abc.abstractmethod
    def restrict(self, allowed: Mapping[int, Sequence[str]]) -> "SearchSpace":
        """The same space with fewer operations in the slots named by index.

        Raises InputError for an unknown slot or operation, or a slot left empty.
        """

    @abc.abstractmethod
    def cost_table(self) -> tuple[int, tuple[tuple[int, ...], ...]]:
        """Multiply-accumulates for one image: of the parts outside all slots, and of each operation of each slot.

        An architecture's MACs are the first number plus one entry per slot.
        """

    def sample(self, generator: torch.Generator) -> tuple[int, ...]:
        """Operation indices drawn uniformly and independently per slot."""
        return tuple(int(torch.randint(len(slot.operations), (), generator=generator)) for slot in self.slots)

    def choices(self, architecture: Architecture) -> tuple[int, ...]:
        """The operation index of each slot; the inverse of `architecture`."""
        return tuple(slot.operations.index(op) for slot, op in zip(self.slots, architecture.operations, strict=True))

    def macs(self, choices: Sequence[int]) -> int:
        """Multiply-accumulates of convolutions and linear layers for one image."""
        fixed, table = self.cost_table()
        return fixed + sum(costs[choice] for costs, choice in zip(table, choices, strict=True))

    def macs_range(self) -> tuple[int, int]:
        """Multiply-accumulates of the cheapest and of the dearest architecture."""
        fixed, table = self.cost_table()
        return fixed + sum(map(min, table)), fixed + sum(map(max, table))


spaces: Registry[SearchSpace] = Registry("search space")
