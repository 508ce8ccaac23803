"""Evolutionary proposal of architectures; who rates them, and how, is not its business."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch

from nas_core.search_spaces.base import Choices, SearchSpace

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
        mutation_probability: Chance of each decision of a mutant to be drawn anew.

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
            proposals += distinct(lambda: _crossover(space, parents, generator), self.crossovers)
        return proposals + distinct(lambda: space.sample(generator), self.population - len(proposals))

    def _mutant(self, space: SearchSpace, parents: list[Choices], generator: torch.Generator) -> Choices:
        """A random parent with each decision drawn anew with the mutation probability."""
        parent, fresh = _pick(parents, generator), space.sample(generator)
        redrawn = torch.rand(len(space.decisions), generator=generator) < self.mutation_probability
        return space.crossed(parent, fresh, redrawn.tolist())


def fit(space: SearchSpace, choices: Choices, max_macs: int | None, generator: torch.Generator) -> Choices:
    """An architecture within the budget: random decisions are redrawn among cheaper options until it is.

    Args:
        space: Where `choices` belongs.
        choices: Returned as it is if it keeps the budget.
        max_macs: The budget, which the cheapest architecture keeps; None for no limit.
        generator: Source of the draws.
    """
    while max_macs is not None and space.macs(choices) > max_macs:
        improvable = [options for options in space.cheaper(choices) if options]
        choices = _pick(_pick(improvable, generator), generator)
    return choices


def _crossover(space: SearchSpace, parents: list[Choices], generator: torch.Generator) -> Choices:
    """Each decision from one of two random parents, by a fair coin."""
    first, second = _pick(parents, generator), _pick(parents, generator)
    coins = torch.randint(2, (len(space.decisions),), generator=generator) == 1
    return space.crossed(first, second, coins.tolist())


def _pick(options: Sequence[Option], generator: torch.Generator) -> Option:
    """One of several, uniformly."""
    return options[int(torch.randint(len(options), (), generator=generator))]
