"""What every search space offers, and the architecture as a value.

The space owns operations, the strategy owns gates: a supernet is called as `supernet(x, gates)` with one gate
per choice slot, and a gate is either an index (that operation runs, nothing else is computed) or a vector of
weights (a mixture of all operations of the slot).
"""

import abc
import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from nas_core.errors import InputError
from nas_core.ops.mixed import Gate as Gate
from nas_core.ops.mixed import Gates
from nas_core.ops.mixed import Subset as Subset
from nas_core.registry import Registry


@dataclass(frozen=True)
class Slot:
    """One choice of a space.

    Attributes:
        name: What the choice is, such as "1<-0" for the edge from node 0 to node 1.
        operations: Names of the operations to choose from; a gate's index counts in this order.
        group: Where the choice is an edge of a cell, the node that the edge enters, written "cell/node"; edges of one
            group compete. None: the choice is no edge.
    """

    name: str
    operations: tuple[str, ...]
    group: str | None = None


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
    def supernet(self, *, partial: int = 1) -> Supernet:
        """A new supernet with the operations that the slots allow.

        Args:
            partial: Only 1 / `partial` of the channels pass through an edge's operations, see `MixedOperation`.

        Raises:
            InputError: If the space has no such edges, or their channels cannot be divided like that.
        """

    @abc.abstractmethod
    def network(self, architecture: Architecture) -> nn.Module:
        """A new stand-alone network of an architecture."""

    @abc.abstractmethod
    def notation(self, operations: Sequence[str]) -> str:
        """The field's own way of writing one operation per slot."""

    @abc.abstractmethod
    def parse(self, notation: str) -> Architecture:
        """Read an architecture's notation. Raises InputError if it is none of this space's."""

    @abc.abstractmethod
    def cost_table(self) -> tuple[int, tuple[tuple[int, ...], ...]]:
        """Multiply-accumulates for one image: of the parts outside all slots, and of each operation of each slot.

        An architecture's MACs are the first number plus one entry per slot.
        """

    def architecture(self, choices: Sequence[int]) -> Architecture:
        """The architecture with the given operation index in each slot."""
        operations = tuple(slot.operations[choice] for slot, choice in zip(self.slots, choices, strict=True))
        return Architecture(operations, self.notation(operations))

    def indices(self, operations: Sequence[str]) -> tuple[int, ...]:
        """The operation index of each slot. Raises InputError if a slot does not offer its operation."""
        for slot, operation in zip(self.slots, operations, strict=True):
            if operation not in slot.operations:
                raise InputError(
                    f"slot {slot.name} of {self.name} does not offer '{operation}'; choose from "
                    f"{', '.join(slot.operations)}"
                )
        return tuple(slot.operations.index(op) for slot, op in zip(self.slots, operations, strict=True))

    def restrict(self, allowed: Mapping[int, Sequence[str]]) -> "SearchSpace":
        """The same space with fewer operations in the slots named by index.

        Raises InputError for an unknown slot or operation, or a slot left empty.
        """
        restricted = copy.copy(self)
        restricted.slots = self.restricted_slots(self.slots, allowed)
        return restricted

    def deepened(self, cells: int) -> "SearchSpace":  # noqa: ARG002 - for spaces that can
        """The same slots in a space of so many more cells in all; raises InputError if it has none to repeat."""
        raise InputError(
            f"search space '{self.name}' is no stack of equal cells, so that none can be added; choose a strategy "
            f"without extra_cells"
        )

    def sample(self, generator: torch.Generator) -> tuple[int, ...]:
        """Operation indices drawn uniformly and independently per slot."""
        return tuple(int(torch.randint(len(slot.operations), (), generator=generator)) for slot in self.slots)

    def choices(self, architecture: Architecture) -> tuple[int, ...]:
        """The operation index of each slot; the inverse of `architecture`."""
        return self.indices(architecture.operations)

    def macs(self, choices: Sequence[int]) -> int:
        """Multiply-accumulates of convolutions and linear layers for one image."""
        fixed, table = self.cost_table()
        return fixed + sum(costs[choice] for costs, choice in zip(table, choices, strict=True))

    def macs_range(self) -> tuple[int, int]:
        """Multiply-accumulates of the cheapest and of the dearest architecture."""
        fixed, table = self.cost_table()
        return fixed + sum(map(min, table)), fixed + sum(map(max, table))

    @classmethod
    def restricted_slots(cls, slots: tuple[Slot, ...], allowed: Mapping[int, Sequence[str]]) -> tuple[Slot, ...]:
        """Slots with only the allowed operations where `allowed` names an index; the space's order is kept."""
        kept = list(slots)
        for index, names in allowed.items():
            if not 0 <= index < len(slots):
                raise InputError(f"{cls.name} has no slot {index}; its slots are 0 to {len(slots) - 1}")
            unknown = sorted(set(names) - set(slots[index].operations))
            if unknown or not names:
                fault = f"does not offer '{unknown[0]}'" if unknown else "would be left without an operation"
                raise InputError(
                    f"slot {slots[index].name} of {cls.name} {fault}; choose from {', '.join(slots[index].operations)}"
                )
            kept[index] = replace(slots[index], operations=tuple(op for op in slots[index].operations if op in names))
        return tuple(kept)


spaces: Registry[SearchSpace] = Registry("search space")
