"""What architectures cost, and the most that the result may cost: one additive cost, whichever it is.

Multiply-accumulates, parameters and measured latency are all sums over what an architecture is made of, so that a
budget is a table of whole numbers and a limit; every strategy keeps it without knowing which.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from nas_core.errors import InputError
from nas_core.ops.cost import CostTable, count_parameters
from nas_core.ops.latency import NANOSECONDS, LatencyTable
from nas_core.search_spaces.base import Choices, SearchSpace


@dataclass(frozen=True)
class Budget:
    """A cost of architectures, and the most that the result may have of it.

    Attributes:
        name: Of the cost in records: "macs", "parameters" or "latency_ms".
        setting: Of the limit in the config, such as "max_macs".
        unit: What is counted, for messages.
        count: Counts the cost of all that a space offers, in whole steps.
        limit: The most steps, or None for no limit.
        steps: How many steps make one unit.
    """

    name: str
    setting: str
    unit: str
    count: Callable[[SearchSpace], CostTable[int]]
    limit: int | None = None
    steps: int = 1
    _tables: "WeakKeyDictionary[SearchSpace, CostTable[int]]" = field(
        default_factory=WeakKeyDictionary, init=False, repr=False, compare=False
    )

    def table(self, space: SearchSpace) -> CostTable[int]:
        """The cost of what a space offers, in steps; counted once."""
        if space not in self._tables:
            self._tables[space] = self.count(space)
        return self._tables[space]

    def of(self, space: SearchSpace, choices: Choices) -> int | float:
        """The cost of an architecture, in units."""
        cost = self.table(space).of(choices)
        return cost if self.steps == 1 else cost / self.steps

    def record(self, space: SearchSpace, choices: Choices) -> dict[str, int | float]:
        """{"macs"} of an architecture, and its cost by name if it is another one."""
        return {"macs": space.macs(choices), self.name: self.of(space, choices)}

    def allows(self, space: SearchSpace, choices: Choices) -> bool:
        """Whether an architecture keeps the limit."""
        return self.limit is None or self.table(space).of(choices) <= self.limit

    def can_be_kept(self, space: SearchSpace) -> bool:
        """Whether a space has an architecture that keeps the limit."""
        return self.limit is None or space.cost_range(self.table(space))[0] <= self.limit

    def check(self, space: SearchSpace) -> None:
        """Refuse a limit that no architecture of a space can keep.

        Raises:
            InputError: Naming the cost of the cheapest architecture.
        """
        if not self.can_be_kept(space):
            smallest = self.written(space.cost_range(self.table(space))[0])
            raise InputError(
                f"{self.setting} = {self.written(self.limit or 0)} is below the smallest network of {space.name}, "
                f"which takes {smallest} {self.unit}; raise it to {smallest} or more"
            )

    def written(self, steps: int) -> str:
        """A cost in units, without loss."""
        return f"{steps / self.steps:.{round(math.log10(self.steps))}f}"

    def expected(self, space: SearchSpace, mixture: Sequence[Tensor]) -> Tensor:
        """Cost in units of what a mixture draws from each slot, on average; gradients reach the mixture.

        Every slot counts once. Where architectures leave some out (DARTS cells keep 8 of 14 edges) or take several
        operations of one, that is the cost of the supernet's mixture and no architecture's.

        Args:
            space: Gives the slots.
            mixture: Chance of each operation, one vector per slot.

        Source:
            The expected latency of ProxylessNAS, arXiv:1812.00332, eq. 6.
        """
        table = self.table(space)
        prices = [
            torch.tensor(costs, dtype=chances.dtype).to(chances.device)
            for costs, chances in zip(table.operations, mixture, strict=True)
        ]
        total = (
            table.fixed + torch.stack([chances @ costs for chances, costs in zip(mixture, prices, strict=True)]).sum()
        )
        return total / self.steps

    def reference(self, space: SearchSpace) -> float:
        """What costs are measured against, in units: the limit, or the dearest architecture without one."""
        return (space.cost_range(self.table(space))[1] if self.limit is None else self.limit) / self.steps


def macs_budget(limit: int | None = None) -> Budget:
    """Multiply-accumulates of convolutions and linear layers for one image."""
    return Budget("macs", "max_macs", "multiply-accumulates per image", lambda space: space.macs_table, limit)


def parameter_budget(limit: int | None = None) -> Budget:
    """Parameters of the stand-alone network, without an auxiliary classifier."""

    def count(space: SearchSpace) -> CostTable[int]:
        # Without storage: no weight needs to be made.
        with torch.device("meta"):
            return space.costs(lambda part: count_parameters(part.make()))

    return Budget("parameters", "max_parameters", "parameters", count, limit)


def latency_budget(table: LatencyTable, limit: float | None = None) -> Budget:
    """Measured milliseconds of one forward pass.

    Args:
        table: Of the space's parts.
        limit: The most milliseconds, or None for no limit.
    """
    steps = None if limit is None else round(limit * NANOSECONDS)
    return Budget("latency_ms", "max_latency_ms", "ms", table.table, steps, NANOSECONDS)


def make_budget(
    max_macs: int | None, max_parameters: int | None, max_latency_ms: float | None, latency_table: Path | None
) -> Budget:
    """The budget that a config describes: of latency with a table of it, else of parameters if they are limited.

    Raises:
        InputError: If the table cannot be read or is none.
    """
    if latency_table is None:
        return macs_budget(max_macs) if max_parameters is None else parameter_budget(max_parameters)
    try:
        text = latency_table.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"the latency table {latency_table} cannot be read ({error}); `dfnas measure-latency` writes one"
        ) from error
    return latency_budget(LatencyTable.from_json(text), max_latency_ms)
