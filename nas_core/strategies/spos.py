"""Single Path One-Shot: train one random path per step, then evolve architectures on the shared weights.

Source: Guo et al., "Single Path One-Shot Neural Architecture Search with Uniform Sampling", arXiv:1904.00420. The
supernet learns from the teacher's soft labels, and an architecture's score is the negative distillation loss.
"""

import functools
import itertools
from collections.abc import Callable, Iterator
from typing import Any, Literal

import torch
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor

from nas_core.checkpoint import Checkpoint, Progress, no_progress
from nas_core.ops.batch_norm import recalibrate
from nas_core.search_spaces.base import Choices, SearchSpace, Supernet
from nas_core.seeding import generator
from nas_core.strategies.base import SearchOutcome, SearchTask, Strategy, strategies
from nas_core.strategies.candidates import Candidate, best, candidate, negative_loss, search_curve
from nas_core.strategies.evolution import Evolution
from nas_core.strategies.sampling import PathSampling, Sampler, make_sampler
from nas_core.training.loop import Trainee, train
from nas_core.training.recipe import Recipe


class SposSpec(Recipe):
    """Single Path One-Shot (Guo et al. 2020): single-path training, then evolutionary search."""

    name: Literal["spos"] = "spos"
    learning_rate: float = Field(
        default=0.05, gt=0, description="peak learning rate of the supernet, after the warm-up"
    )
    warmup_epochs: int = Field(
        default=0, ge=0, description="epochs of linear warm-up before the cosine; fewer than epochs"
    )
    weight_decay: float = Field(default=4e-5, ge=0, description="L2 penalty on convolution and linear weights")
    sampling: PathSampling = Field(
        default="uniform",
        description="paths of a training step; uniform: one; mac-bins: one of a cost drawn uniformly; fair: several, "
        "which hold every operation of a slot once",
    )
    mac_bins: int = Field(default=7, ge=1, description="bins of cost that paths are drawn from; mac-bins only")
    recalibration_batches: int = Field(
        default=20, ge=1, description="training batches that give each candidate its own BatchNorm statistics"
    )
    population: int = Field(default=50, ge=1, description="architectures rated per generation")
    generations: int = Field(default=20, ge=1, description="generations, the random first one included")
    parents: int = Field(
        default=10, ge=1, description="best architectures so far from which the next generation descends"
    )
    crossovers: int = Field(default=25, ge=0, description="architectures per generation that combine two parents")
    mutants: int = Field(default=25, ge=0, description="architectures per generation that mutate one parent")
    mutation_probability: float = Field(
        default=0.1, gt=0, le=1, description="chance of each slot of a mutant to be redrawn"
    )

    @model_validator(mode="after")
    def _children_fit_the_population(self) -> "SposSpec":
        if self.crossovers + self.mutants > self.population:
            raise ValueError(
                f"crossovers + mutants = {self.crossovers + self.mutants} must not exceed "
                f"population = {self.population}"
            )
        return self


class SinglePath(Trainee):
    """A supernet of which every step trains one path, or several whose gradients add up.

    Args:
        supernet: Its weights learn.
        seed: The run's.
        sampler: Draws the paths.
    """

    def __init__(self, supernet: Supernet, seed: int, sampler: Sampler) -> None:
        super().__init__(supernet)
        self._seed, self._sampler = seed, sampler
        self.passes = sampler.paths_per_step

    def start_epoch(self, epoch: int) -> None:
        """Start the epoch's stream of paths."""
        self._paths = self._stream(generator(self._seed, "search.paths", epoch))

    def forward(self, images: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch classes"]:
        """Logits along a new path."""
        return self.network(images, next(self._paths))

    def _stream(self, draws: torch.Generator) -> Iterator[Choices]:
        while True:
            yield from self._sampler.step(draws)


class Rating:
    """Scores single paths of a trained supernet; the same images for every path.

    Args:
        supernet: Its weights are shared by all paths. Its running statistics become those of the last path rated.
        task: The data and the loss.
        recalibration_batches: Training batches for the BatchNorm statistics.
    """

    def __init__(self, supernet: Supernet, task: SearchTask, recalibration_batches: int) -> None:
        epoch = task.train.epoch(generator(task.seed, "search.recalibration"))
        self._recalibration = [batch.images for batch in itertools.islice(epoch, recalibration_batches)]
        self._validation = list(task.validation.fixed())
        self._supernet, self._objective = supernet, task.objective

    @torch.no_grad()
    def __call__(self, path: Choices) -> float:
        """The path's score under its own BatchNorm statistics; higher is better."""
        recalibrate(self._supernet, lambda images: self._supernet(images, path), self._recalibration)
        return negative_loss(lambda images: self._supernet(images, path), self._validation, self._objective)


@strategies.register(SposSpec)
class Spos(Strategy):
    """Single Path One-Shot.

    Args:
        recalibration_batches: Training batches for each candidate's BatchNorm statistics.
        generations: Generations, the random first one included.
        population: Architectures per generation.
        parents: Best architectures so far that others descend from.
        crossovers: Children of two parents per generation.
        mutants: Mutated parents per generation.
        mutation_probability: Chance of each slot of a mutant to be redrawn.
        sampling: How the paths of a training step are drawn.
        mac_bins: Bins of cost, for that way of sampling.
        recipe: The fields of `Recipe`, which say how the supernet learns.
    """

    def __init__(
        self,
        *,
        recalibration_batches: int,
        generations: int,
        population: int,
        parents: int,
        crossovers: int,
        mutants: int,
        mutation_probability: float,
        sampling: PathSampling,
        mac_bins: int,
        **recipe: Any,
    ) -> None:
        self._sampling: PathSampling = sampling
        self._mac_bins = mac_bins
        self.recipe = Recipe(**recipe)
        self.recalibration_batches = recalibration_batches
        self.generations = generations
        self.evolution = Evolution(population, parents, crossovers, mutants, mutation_probability)

    def check(self, space: SearchSpace, max_macs: int | None) -> None:
        """Refuse also a way of sampling that the space has no paths for."""
        super().check(space, max_macs)
        make_sampler(space, self._sampling, self._mac_bins)

    def search(self, task: SearchTask, checkpoint: Checkpoint, progress: Progress = no_progress) -> SearchOutcome:
        """Train the supernet, then evolve; state is saved after every epoch and every generation."""
        self.check(task.space, task.max_macs)
        state = dict(checkpoint.state or {})

        def save(part: str, value: dict[str, Any]) -> None:
            state[part] = value
            checkpoint.save(dict(state))

        steps = self.recipe.epochs * len(task.train)
        ratings = self.generations * self.evolution.population
        supernet = task.supernet()
        training = train(
            SinglePath(supernet, task.seed, make_sampler(task.space, self._sampling, self._mac_bins)),
            task.train,
            self.recipe,
            task.objective,
            seed=task.seed,
            stage="search",
            checkpoint=Checkpoint(state.get("supernet"), functools.partial(save, "supernet")),
            progress=lambda done, _, figures: progress(done, steps + ratings, figures),
        )
        candidates = self._evolve(
            task,
            Rating(supernet, task, self.recalibration_batches),
            Checkpoint(state.get("evolution"), functools.partial(save, "evolution")),
            lambda done, figures: progress(steps + done, steps + ratings, figures),
        )
        found = task.space.parse(best(candidates)["architecture"])
        return SearchOutcome(found, training, search_curve(candidates), candidates)

    def _evolve(
        self, task: SearchTask, rate: Rating, checkpoint: Checkpoint, progress: Callable[[int, dict[str, float]], None]
    ) -> list[Candidate]:
        """All rated architectures in the order of rating; ends early when there is no new one left."""
        state = checkpoint.state or {"generation": 0, "candidates": []}
        candidates: list[Candidate] = list(state["candidates"])
        for generation in range(state["generation"], self.generations):
            scores = {task.space.choices(task.space.parse(c["architecture"])): c["score"] for c in candidates}
            draws = generator(task.seed, "search.evolution", generation)
            for path in self.evolution.propose(task.space, scores, task.max_macs, draws):
                candidates.append(candidate(task.space, path, rate(path), generation))
                progress(len(candidates), {"best_score": best(candidates)["score"]})
            checkpoint.save({"generation": generation + 1, "candidates": list(candidates)})
        return candidates
