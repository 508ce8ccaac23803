"""Evolutionary proposal of architectures; who rates them, and how, is not its business."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch

from nas_core.search_spaces.base import SearchSpace

Choices = tuple[int, ...]
Option = TypeVar("Option")

# This many proposals in a row without a new architecture mean that there is none left to find.
PATIENCE = 200


@dataclass(frozen=True)
class Evolution:
    """How a generation is made from what was rated before.

    Attributes:
        population: Architectures per generation.
        parents: The best so far, from which mutants and crossovers descend.
        crossovers: Of the population, children of two parents.
        mutants: Of the population, mutated copies of a parent. The rest is drawn at random.
        mutation_probability: Chance of each slot of a mutant to be drawn anew.

    Source:
        Guo et al., arXiv:1904.00420, algorithm 1. There a candidate over budget is thrown away; here it is made
        cheaper (see `fit`), so that a tight budget does not starve the search.
    """

    population: int
    parents: int
    crossovers: int
    mutants: int
    mutation_probability: float

    def propose(
        self, space: SearchSpace, scores: Mapping[Choices, float], max_macs: int | None, generator: torch.Generator
    ) -> list[Choices]:
        """The next generation: distinct architectures within the budget, none of them rated before.

        Args:
            space: Where to look.
            scores: What was rated so far, in the order of rating; higher is better.
            max_macs: The budget, which the cheapest architecture keeps.
            generator: Source of all draws.

        Returns:
            `population` architectures; fewer, or none, when no new one is found.
        """
        parents = sorted(scores, key=lambda choices: -scores[choices])[: self.parents]
        seen = set(scores)

        def distinct(make: Callable[[], Choices], count: int) -> list[Choices]:
            found: list[Choices] = []
            misses = 0
            while len(found) < count and misses < PATIENCE:
                candidate = fit(space, make(), max_macs, generator)
                misses = misses + 1 if candidate in seen else 0
                if candidate not in seen:
                    found.append(candidate)
                    seen.add(candidate)
            return found

        proposals: list[Choices] = []
        if parents:
            proposals += distinct(lambda: self._mutant(space, parents, generator), self.mutants)
            proposals += distinct(lambda: _crossover(parents, generator), self.crossovers)
        return proposals + distinct(lambda: space.sample(generator), self.population - len(proposals))

    def _mutant(self, space: SearchSpace, parents: list[Choices], generator: torch.Generator) -> Choices:
        """A random parent with each slot drawn anew with the mutation probability."""
        parent, fresh = _pick(parents, generator), space.sample(generator)
        redrawn = (torch.rand(len(parent), generator=generator) < self.mutation_probability).tolist()
        return tuple(new if redraw else old for old, new, redraw in zip(parent, fresh, redrawn, strict=True))


def fit(space: SearchSpace, choices: Choices, max_macs: int | None, generator: torch.Generator) -> Choices:
    """An architecture within the budget: random slots are redrawn among cheaper operations until it is.

    Args:
        space: Where `choices` belongs.
        choices: Returned as it is if it keeps the budget.
        max_macs: The budget, which the cheapest architecture keeps; None for no limit.
        generator: Source of the draws.
    """
    if max_macs is None:
        return choices
    _, table = space.cost_table()
    fitted = list(choices)
    while space.macs(fitted) > max_macs:
        cheaper = [
            [option for option, cost in enumerate(costs) if cost < costs[choice]]
            for costs, choice in zip(table, fitted, strict=True)
        ]
        slot = _pick([slot for slot, options in enumerate(cheaper) if options], generator)
        fitted[slot] = _pick(cheaper[slot], generator)
    return tuple(fitted)


def _crossover(parents: list[Choices], generator: torch.Generator) -> Choices:
    """Each slot from one of two random parents, by a fair coin."""
    first, second = _pick(parents, generator), _pick(parents, generator)
    coins = torch.randint(2, (len(first),), generator=generator).tolist()
    return tuple(b if coin else a for a, b, coin in zip(first, second, coins, strict=True))


def _pick(options: Sequence[Option], generator: torch.Generator) -> Option:
    """One of several, uniformly."""
    return options[int(torch.randint(len(options), (), generator=generator))]
