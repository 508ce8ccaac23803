"""Which single paths a supernet trains: uniform ones, uniform ones within a bin of costs, or strictly fair ones."""

import abc
import math

import torch

from nas_core.errors import InputError
from nas_core.search_spaces.base import Choices, SearchSpace
from nas_core.settings.strategies import PathSampling

# Draws into one bin of costs; the published code's.
TRIES = 500
# Half the width of the range of bins, in standard deviations of a uniform path's cost: 290M to 360M, the published
# range, is the mean of its space, 327.1M, plus and minus three times 11.8M.
SPREAD = 3


class Sampler(abc.ABC):
    """Draws paths for the steps of a supernet's training."""

    @property
    def paths_per_step(self) -> int:
        """Paths whose gradients add up to one step."""
        return 1

    @abc.abstractmethod
    def step(self, generator: torch.Generator) -> list[Choices]:
        """The paths of one step: an operation index per slot, for each."""


class Uniform(Sampler):
    """One path, drawn uniformly from those that connect input and output.

    Args:
        space: Where paths come from.
    """

    def __init__(self, space: SearchSpace) -> None:
        self._space = space

    def step(self, generator: torch.Generator) -> list[Choices]:
        """One path."""
        return [self._space.sample(generator)]


class MacBins(Sampler):
    """One path: a bin of costs is drawn uniformly, then uniform paths until one falls into it.

    After `TRIES` draws the one with the cost nearest to the bin's middle is taken. Operations are not drawn uniformly
    then: cheap and dear paths are trained more often than they occur.

    Args:
        space: Where paths come from.
        bins: Bins of equal width, over the mean cost of uniform choices plus and minus `SPREAD` standard deviations.

    Source:
        The code of Single Path One-Shot NAS: seven bins from 290 to 360 million multiply-accumulates.
    """

    def __init__(self, space: SearchSpace, bins: int) -> None:
        self._space, self._bins = space, bins
        table = [decision.totals(space.macs_table) for decision in space.decisions]
        means = [sum(costs) / len(costs) for costs in table]
        variance = sum(
            sum((cost - mean) ** 2 for cost in costs) / len(costs) for costs, mean in zip(table, means, strict=True)
        )
        self.low = space.macs_table.fixed + sum(means) - SPREAD * math.sqrt(variance)
        self.width = 2 * SPREAD * math.sqrt(variance) / bins

    def step(self, generator: torch.Generator) -> list[Choices]:
        """One path."""
        middle = self.low + (int(torch.randint(self._bins, (), generator=generator)) + 0.5) * self.width

        def distance(path: Choices) -> float:
            return abs(self._space.macs(path) - middle)

        nearest = self._space.sample(generator)
        for _ in range(TRIES - 1):
            if distance(nearest) <= self.width / 2:
                break
            nearest = min(nearest, self._space.sample(generator), key=distance)
        return [nearest]


class Fair(Sampler):
    """As many paths as the largest slot has operations; in each slot every operation is in exactly one of them.

    A slot with fewer operations has each of them as often as any other, or once more.

    Args:
        space: Where paths come from; its slots are independent.

    Raises:
        InputError: If choices of the space go together, so that a slot's operations cannot be dealt out freely.

    Source:
        Strict fairness of FairNAS, arXiv:1907.01845, section 3.2: one random permutation per slot, one step for all.
    """

    def __init__(self, space: SearchSpace) -> None:
        self._sizes = [len(slot.operations) for slot in space.slots]
        if [len(decision.options) for decision in space.decisions] != self._sizes:
            raise InputError(
                f"fair path sampling needs slots that are chosen independently, and those of search space "
                f"'{space.name}' are not; choose uniform or mac-bins"
            )

    @property
    def paths_per_step(self) -> int:
        """Operations of the largest slot."""
        return max(self._sizes)

    def step(self, generator: torch.Generator) -> list[Choices]:
        """One path per operation."""
        columns = []
        for size in self._sizes:
            rounds = -(-self.paths_per_step // size)
            column = torch.cat([torch.randperm(size, generator=generator) for _ in range(rounds)])
            columns.append(column[: self.paths_per_step].tolist())
        return list(zip(*columns, strict=True))


def make_sampler(space: SearchSpace, sampling: PathSampling, mac_bins: int) -> Sampler:
    """The sampler that a config names."""
    if sampling == "mac-bins":
        return MacBins(space, mac_bins)
    return Fair(space) if sampling == "fair" else Uniform(space)
