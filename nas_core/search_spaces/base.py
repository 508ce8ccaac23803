"""What every search space offers, and the architecture as a value.

The space owns operations, the strategy owns gates: a supernet is called as `supernet(x, gates)` with one gate
per choice slot, and a gate is either a choice (that operation runs, nothing else is computed) or a vector of
weights (a mixture of all operations of the slot).

Which choices go together is said once, as *decisions*: a decision is a group of slots with the list of its legal joint
choices. Slots that are independent are decisions of their own; the edges into a node of a DARTS cell, of which
exactly two stay, are one. Sampling, the best architecture under a budget, mutation and counting follow from it. Where
choices can cut a network's output off its input, `connected` says which do not; only these are sampled and found.
"""

import abc
import copy
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, TypeAlias

import torch
from torch import Tensor, nn

from nas_core.errors import InputError
from nas_core.ops.cost import Cost, CostTable, Part, count_macs
from nas_core.ops.knapsack import best_choices
from nas_core.ops.mixed import Choice as Choice
from nas_core.ops.mixed import Gate as Gate
from nas_core.ops.mixed import Gates
from nas_core.ops.mixed import Subset as Subset

# One choice per slot.
Choices: TypeAlias = tuple[Choice, ...]
# The same by name: what is chosen in a slot is an operation, or several or none.
Chosen: TypeAlias = str | tuple[str, ...]


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
class Decision:
    """Slots that an architecture decides together.

    Attributes:
        slots: Indices of the slots.
        options: The legal joint choices: each holds one choice per slot of `slots`. Not empty.
    """

    slots: tuple[int, ...]
    options: tuple[Choices, ...]

    def totals(self, table: CostTable[Cost]) -> list[Cost]:
        """What each option adds to a sum over slots, such as a cost."""
        return [table.of_slots(self.slots, option) for option in self.options]


@dataclass(frozen=True)
class Architecture:
    """What is chosen in each slot of a space: hashable, printable in the field's own notation, and JSON (the notation).

    Attributes:
        operations: Per slot the name of the chosen operation, so that it means the same in a restricted space; a
            tuple of names where a slot takes several or none.
        notation: The field's own way of writing it; `SearchSpace.parse` reads it back.
    """

    operations: tuple[Chosen, ...]
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

    Attributes:
        name: Under which it is registered.
        drops_paths: Whether its networks have `DropPath` layers.
        slots: What is to be chosen.
        input_shape: See above.
        num_classes: See above.
    """

    name: ClassVar[str]
    drops_paths: ClassVar[bool] = False
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
    def notation(self, operations: Sequence[Chosen]) -> str:
        """The field's own way of writing what is chosen in each slot."""

    @abc.abstractmethod
    def parse(self, notation: str) -> Architecture:
        """Read an architecture's notation. Raises InputError if it is none of this space's."""

    @abc.abstractmethod
    def parts(self) -> tuple[Sequence[Part], Sequence[Sequence[Sequence[Part]]]]:
        """What stand-alone networks are made of: parts outside all slots, and parts of each operation of each slot.

        A network's cost is the sum over the first and over the parts of what is chosen.
        """

    @functools.cached_property
    def decisions(self) -> tuple[Decision, ...]:
        """What is decided together; together they cover every slot once. As it stands, one slot at a time."""
        return tuple(
            Decision((index,), tuple((choice,) for choice in range(len(slot.operations))))
            for index, slot in enumerate(self.slots)
        )

    @functools.cached_property
    def connected(self) -> tuple[tuple[Decision, ...], ...]:
        """The architectures whose output depends on their input: the union of these products of options.

        As it stands one product, all decisions: nothing that can be chosen cuts the input off.
        """
        return (self.decisions,)

    # --- architectures ---

    def architecture(self, choices: Sequence[Choice]) -> Architecture:
        """The architecture with the given choice in each slot."""
        operations = tuple(
            tuple(slot.operations[index] for index in choice) if isinstance(choice, tuple) else slot.operations[choice]
            for slot, choice in zip(self.slots, choices, strict=True)
        )
        return Architecture(operations, self.notation(operations))

    def indices(self, operations: Sequence[Chosen]) -> Choices:
        """The choice in each slot, given by name.

        Raises:
            InputError: If a slot does not offer its operation, or what is chosen does not go together.
        """
        for slot, chosen in zip(self.slots, operations, strict=True):
            for operation in chosen if isinstance(chosen, tuple) else (chosen,):
                if operation not in slot.operations:
                    raise InputError(
                        f"slot {slot.name} of {self.name} does not offer '{operation}'; choose from "
                        f"{', '.join(slot.operations)}"
                    )
        choices = tuple(
            tuple(map(slot.operations.index, chosen)) if isinstance(chosen, tuple) else slot.operations.index(chosen)
            for slot, chosen in zip(self.slots, operations, strict=True)
        )
        for decision in self.decisions:
            if _part(choices, decision) not in decision.options:
                slots = ", ".join(self.slots[slot].name for slot in decision.slots)
                raise InputError(f"what is chosen for {slots} does not go together in {self.name}")
        return choices

    def choices(self, architecture: Architecture) -> Choices:
        """The choice in each slot; the inverse of `architecture`."""
        return self.indices(architecture.operations)

    def restrict(self, allowed: Mapping[int, Sequence[str]]) -> "SearchSpace":
        """The same space with fewer operations in the slots named by index.

        Raises InputError for an unknown slot or operation, a slot left empty, or if no architecture is left.
        """
        restricted = copy.copy(self)
        restricted.slots = self.restricted_slots(self.slots, allowed)
        for derived in ("decisions", "connected"):
            vars(restricted).pop(derived, None)
        if "macs_table" in vars(self):
            # What an operation costs stays, and need not be counted again.
            rows = zip(self.macs_table.operations, self.slots, restricted.slots, strict=True)
            kept = (
                tuple(cost for cost, name in zip(costs, before.operations, strict=True) if name in after.operations)
                for costs, before, after in rows
            )
            restricted.macs_table = CostTable(self.macs_table.fixed, tuple(kept))
        for decision in restricted.decisions:
            if not decision.options:
                slots = ", ".join(self.slots[slot].name for slot in decision.slots)
                raise InputError(f"the restriction of {self.name} leaves no legal choice for {slots}; allow more there")
        if not restricted.connected:
            raise InputError(
                f"the restriction of {self.name} leaves no architecture whose output depends on its input; allow more "
                "than `none` on one way from input to output"
            )
        return restricted

    def deepened(self, cells: int) -> "SearchSpace":  # noqa: ARG002 - for spaces that can
        """The same slots in a space whose supernet has so many more cells; raises InputError if there are none."""
        raise InputError(
            f"search space '{self.name}' is no stack of equal cells, so that none can be added; choose a strategy "
            f"without extra_cells"
        )

    def check_auxiliary(self) -> None:
        """Refuse a second classifier amid a network, if there is no place for one; see `WithFeatures`."""
        raise InputError(
            f"networks of search space '{self.name}' have no place for an auxiliary classifier; set "
            "retrain.auxiliary_weight to 0"
        )

    @property
    def size(self) -> int:
        """Number of architectures."""
        return math.prod(len(decision.options) for decision in self.decisions)

    # --- drawing and combining ---

    def sample(self, generator: torch.Generator) -> Choices:
        """A connected architecture drawn uniformly."""
        while True:
            drawn = [decision.options[_draw(len(decision.options), generator)] for decision in self.decisions]
            choices = self._joined(drawn)
            if self.is_connected(choices):
                return choices

    def is_connected(self, choices: Choices) -> bool:
        """Whether the architecture's output depends on its input."""
        if self.connected[0] is self.decisions:
            return True
        return any(all(_part(choices, d) in d.options for d in decisions) for decisions in self.connected)

    def crossed(self, first: Choices, second: Choices, from_second: Sequence[bool]) -> Choices:
        """The architecture with each decision of `first`, or of `second` where the mask (one per decision) says so."""
        return self._joined(
            [
                _part(second if other else first, decision)
                for decision, other in zip(self.decisions, from_second, strict=True)
            ]
        )

    def cheaper(self, choices: Choices, costs: CostTable[int] | None = None) -> list[list[Choices]]:
        """Per decision, the architectures that differ from `choices` in it alone and cost less, by default in MACs."""
        costs = costs or self.macs_table
        found = []
        for decision in self.decisions:
            present = costs.of_slots(decision.slots, _part(choices, decision))
            options = [o for o in decision.options if costs.of_slots(decision.slots, o) < present]
            found.append([self._replaced(choices, decision, option) for option in options])
        return found

    def best(
        self, scores: Sequence[Sequence[float]], limit: int | None, costs: CostTable[int] | None = None
    ) -> Choices:
        """The connected architecture with the largest sum of scores within a limit on its cost: the exact maximum.

        Args:
            scores: One per operation of each slot; what is not chosen does not count.
            limit: The most that it may cost, or None for no limit.
            costs: What architectures cost; None: multiply-accumulates.

        Returns:
            The choices; of equals, the cheaper one.

        Raises:
            ValueError: If no connected architecture keeps the limit.
        """
        costs = costs or self.macs_table
        value = CostTable(0.0, tuple(tuple(row) for row in scores))
        found: list[Choices] = []
        for decisions in self.connected:
            prices = [decision.totals(costs) for decision in decisions]
            if limit is not None and costs.fixed + sum(map(min, prices)) > limit:
                continue
            gains = [decision.totals(value) for decision in decisions]
            picks = best_choices(gains, prices, None if limit is None else limit - costs.fixed)
            found.append(self._joined([d.options[pick] for d, pick in zip(decisions, picks, strict=True)]))
        if not found:
            raise ValueError(f"no architecture of {self.name} costs {limit} or less")
        return max(found, key=lambda choices: (value.of(choices), -costs.of(choices)))

    # --- cost ---

    @functools.cached_property
    def macs_table(self) -> CostTable[int]:
        """Multiply-accumulates for one image: of the parts outside all slots, and of each operation of each slot.

        An architecture's MACs are the first number plus those of what is chosen. Counted, not estimated, and once.
        """

        def count(part: Part) -> int:
            # Without storage: no weight needs to be made.
            with torch.device("meta"):
                return count_macs(part.make(), part.input_shape)

        return self.costs(count)

    def macs(self, choices: Sequence[Choice]) -> int:
        """Multiply-accumulates of convolutions and linear layers for one image."""
        return self.macs_table.of(choices)

    def macs_range(self) -> tuple[int, int]:
        """Multiply-accumulates of the cheapest and of the dearest architecture."""
        return self.cost_range(self.macs_table)

    def cost_range(self, costs: CostTable[int]) -> tuple[int, int]:
        """What the cheapest and the dearest connected architecture cost."""
        options = [[decision.totals(costs) for decision in decisions] for decisions in self.connected]
        return (
            costs.fixed + min(sum(map(min, of_decisions)) for of_decisions in options),
            costs.fixed + max(sum(map(max, of_decisions)) for of_decisions in options),
        )

    def costs(self, measure: Callable[[Part], Cost]) -> CostTable[Cost]:
        """The additive table of any cost of parts, each kind of part measured once.

        Args:
            measure: The cost of one part, its `count` left out.
        """
        known: dict[tuple[str, tuple[int, int, int]], Cost] = {}

        def total(parts: Sequence[Part]) -> Cost:
            for part in parts:
                if (part.kind, part.input_shape) not in known:
                    known[part.kind, part.input_shape] = measure(part)
            return sum(part.count * known[part.kind, part.input_shape] for part in parts)

        fixed, slots = self.parts()
        return CostTable(total(fixed), tuple(tuple(total(parts) for parts in operations) for operations in slots))

    # --- for subclasses ---

    def check_partial(self, partial: int, channels: int | None = None) -> None:
        """Refuse partial channels: of a space without edges (`channels` None), or that they do not divide."""
        if partial > 1 and channels is None:
            raise InputError(
                f"search space '{self.name}' has no edges that keep their channels, so that a part of them could "
                f"bypass the operations; choose a strategy without partial channels"
            )
        if channels is not None and channels % partial:
            raise InputError(
                f"search space '{self.name}': channels = {channels} cannot be divided by partial channels 1/{partial}; "
                f"choose a multiple of {partial}"
            )

    @classmethod
    def check_sizes(cls, **sizes: int) -> None:
        """Refuse sizes that are not positive, by name."""
        for name, size in sizes.items():
            if size < 1:
                raise InputError(f"search space '{cls.name}': {name} is {size}; it must be at least 1")

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

    def _joined(self, parts: Sequence[Choices]) -> Choices:
        """One choice per slot from one option per decision."""
        chosen = {
            slot: choice
            for decision, option in zip(self.decisions, parts, strict=True)
            for slot, choice in zip(decision.slots, option, strict=True)
        }
        return tuple(chosen[slot] for slot in range(len(self.slots)))

    def _replaced(self, choices: Choices, decision: Decision, option: Choices) -> Choices:
        new = dict(zip(decision.slots, option, strict=True))
        return tuple(new.get(slot, choice) for slot, choice in enumerate(choices))


def _part(choices: Sequence[Choice], decision: Decision) -> Choices:
    """What `choices` hold for a decision."""
    return tuple(choices[slot] for slot in decision.slots)


def _draw(options: int, generator: torch.Generator) -> int:
    return int(torch.randint(options, (), generator=generator))
