"""Evolutionary search of architectures; who rates them, and how, is not its business."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch

from nas_core.checkpoint import Checkpoint
from nas_core.search_spaces.base import Choices, SearchSpace
from nas_core.seeding import generator as seeded
from nas_core.strategies.base import SearchTask
from nas_core.strategies.budget import Budget
from nas_core.strategies.candidates import Candidate, best, candidate

Option = TypeVar("Option")

# How often a random architecture is drawn anew before one above the budget is made cheaper.
ATTEMPTS = 100

# This many proposals in a row without a new connected architecture: there is hardly one left to find.
PATIENCE = 200


@dataclass(frozen=True)
class Evolution:
    """How a generation is made from what was rated before.

    Attributes:
        population: Architectures per generation.
        generations: Generations, the random first one included.
        parents: The best so far, from which mutants and crossovers descend.
        crossovers: Of the population, children of two parents.
        mutants: Of the population, mutated copies of a parent. The rest is drawn at random.
        mutation_probability: Chance of each decision of a mutant to be drawn anew.

    Source:
        Guo et al., arXiv:1904.00420, algorithm 1. There candidates over budget are thrown away. So are random ones
        here, for a while; after that, and at once if they have parents, they are made cheaper (see `fit`), so that a
        tight budget does not starve the search.
    """

    population: int
    generations: int
    parents: int
    crossovers: int
    mutants: int
    mutation_probability: float

    @classmethod
    def random(cls, population: int) -> "Evolution":
        """One generation without parents: random, distinct, and within the budget."""
        return cls(population, generations=1, parents=0, crossovers=0, mutants=0, mutation_probability=1.0)

    def run(
        self,
        task: SearchTask,
        rate: Callable[[Choices], dict[str, Any]],
        checkpoint: Checkpoint,
        progress: Callable[[int, dict[str, float]], None],
        compare: Callable[[list[Candidate]], list[Candidate]] = lambda candidates: candidates,
        first: Callable[[], list[Choices]] | None = None,
    ) -> list[Candidate]:
        """All generations, or what is left of them after `checkpoint.state`.

        Args:
            task: The space, the budget and the seed.
            rate: The figures of an architecture; "score" among them, unless `compare` adds it.
            checkpoint: Saved after every generation.
            progress: Told how many were rated.
            compare: Gives all candidates their scores where a score depends on what else was rated.
            first: Makes the first generation; None: it is random.

        Returns:
            All rated architectures in the order of rating; fewer if there is no new one left.
        """
        state = checkpoint.state or {"generation": 0, "candidates": []}
        candidates: list[Candidate] = compare(list(state["candidates"]))
        for generation in range(state["generation"], self.generations):
            scores = {task.space.choices(task.space.parse(c["architecture"])): c["score"] for c in candidates}
            draws = seeded(task.seed, "search.evolution", generation)
            paths = first() if first and not generation else self.propose(task.space, scores, task.budget, draws)
            for path in paths:
                candidates.append(candidate(task.space, task.budget, path, rate(path), generation))
                progress(
                    len(candidates), {"best_score": best(candidates)["score"]} if "score" in candidates[-1] else {}
                )
            candidates = compare(candidates)
            checkpoint.save({"generation": generation + 1, "candidates": list(candidates)})
        return candidates

    def propose(
        self, space: SearchSpace, scores: Mapping[Choices, float], budget: Budget, generator: torch.Generator
    ) -> list[Choices]:
        """The next generation: distinct connected architectures within the budget, none of them rated before.

        Args:
            space: Where to look.
            scores: What was rated so far, in the order of rating; higher is better.
            budget: Which the cheapest architecture keeps.
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
                candidate = fit(space, make(), budget, generator)
                fresh = candidate not in seen and space.is_connected(candidate)
                misses = 0 if fresh else misses + 1
                if fresh:
                    found.append(candidate)
                    seen.add(candidate)
            return found

        proposals: list[Choices] = []
        if parents:
            proposals += distinct(lambda: self._mutant(space, parents, generator), self.mutants)
            proposals += distinct(lambda: _crossover(space, parents, generator), self.crossovers)
        return proposals + distinct(lambda: random_choices(space, budget, generator), self.population - len(proposals))

    def _mutant(self, space: SearchSpace, parents: list[Choices], generator: torch.Generator) -> Choices:
        """A random parent with each decision drawn anew with the mutation probability."""
        parent, fresh = _pick(parents, generator), space.sample(generator)
        redrawn = torch.rand(len(space.decisions), generator=generator) < self.mutation_probability
        return space.crossed(parent, fresh, redrawn.tolist())


def random_choices(space: SearchSpace, budget: Budget, generator: torch.Generator) -> Choices:
    """A random architecture within the budget.

    It is drawn again until it keeps the budget, so that all that do are equally likely, and made cheaper (see `fit`)
    only where hardly any does. What comes out need not be connected.

    Args:
        space: Where it is drawn from.
        budget: Which the cheapest architecture keeps.
        generator: Source of the draws.
    """
    choices = space.sample(generator)
    for _ in range(ATTEMPTS):
        if budget.allows(space, choices):
            return choices
        choices = space.sample(generator)
    return fit(space, choices, budget, generator)


def fit(space: SearchSpace, choices: Choices, budget: Budget, generator: torch.Generator) -> Choices:
    """An architecture within the budget: random decisions are redrawn among cheaper options until it is.

    What comes out need not be connected.

    Args:
        space: Where `choices` belongs.
        choices: Returned as it is if it keeps the budget.
        budget: Which the cheapest architecture keeps.
        generator: Source of the draws.
    """
    while not budget.allows(space, choices):
        improvable = [options for options in space.cheaper(choices, budget.table(space)) if options]
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
