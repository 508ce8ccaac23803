"""Single Path One-Shot: train one random path per step, then evolve architectures on the shared weights.

Source: Guo et al., "Single Path One-Shot Neural Architecture Search with Uniform Sampling", arXiv:1904.00420. The
supernet learns from the teacher's soft labels, and an architecture's score is the negative distillation loss.
"""

import functools
import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from nas_core.checkpoint import Checkpoint, Progress, no_progress
from nas_core.search_spaces.base import Choices, SearchSpace, Supernet
from nas_core.seeding import generator
from nas_core.settings.strategies import PathSampling, PriorSpec, ScoresSpec, SposSpec, strategies
from nas_core.strategies.base import SearchOutcome, SearchTask, Strategy
from nas_core.strategies.budget import Budget
from nas_core.strategies.candidates import best, search_curve
from nas_core.strategies.evolution import Evolution
from nas_core.strategies.rating import Rating
from nas_core.strategies.sampling import Sampler, make_sampler
from nas_core.strategies.training_free import TrainingFreeRating, compared, promising
from nas_core.training.loop import Trainee, train
from nas_core.training.recipe import Recipe


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
        mutation_probability: Chance of each decision of a mutant to be redrawn.
        sampling: How the paths of a training step are drawn.
        mac_bins: Bins of cost, for that way of sampling.
        prior: Chooses the first generation; None: it is random.
        training_free: Scores of untrained networks, whose ranks are put together with the supernet's; None: none.
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
        prior: PriorSpec | None,
        training_free: ScoresSpec | None,
        **recipe: Any,
    ) -> None:
        self._sampling: PathSampling = sampling
        self._mac_bins, self.prior, self.training_free = mac_bins, prior, training_free
        self.recipe = Recipe(**recipe)
        self.recalibration_batches = recalibration_batches
        self.evolution = Evolution(population, generations, parents, crossovers, mutants, mutation_probability)

    def check(self, space: SearchSpace, budget: Budget) -> None:
        """Refuse also a way of sampling that the space has no paths for."""
        super().check(space, budget)
        make_sampler(space, self._sampling, self._mac_bins)

    def rating(
        self, supernet: Supernet, task: SearchTask, recalibration_batches: int
    ) -> Callable[[Choices], dict[str, Any]]:
        """Gives the figures of an architecture: {"score"}, or {"scores"} to be compared, with training-free ones."""
        score = functools.partial(Rating(task, recalibration_batches), supernet)
        if self.training_free is None:
            return lambda path: {"score": score(path)}
        others = TrainingFreeRating.of(self.training_free, task)

        def scores(path: Choices) -> dict[str, Any]:
            own = score(path)
            return {"scores": {"supernet": own if math.isfinite(own) else None} | others(path)["scores"]}

        return scores

    def search(self, task: SearchTask, checkpoint: Checkpoint, progress: Progress = no_progress) -> SearchOutcome:
        """Train the supernet, then evolve; state is saved after every epoch and every generation."""
        self.check(task.space, task.budget)
        state = dict(checkpoint.state or {})

        def save(part: str, value: dict[str, Any]) -> None:
            state[part] = value
            checkpoint.save(dict(state))

        steps = self.recipe.epochs * len(task.train)
        ratings = self.evolution.generations * self.evolution.population
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
        candidates = self.evolution.run(
            task,
            self.rating(supernet, task, self.recalibration_batches),
            Checkpoint(state.get("evolution"), functools.partial(save, "evolution")),
            lambda done, figures: progress(steps + done, steps + ratings, figures),
            compare=compared if self.training_free else list,
            first=self.prior and functools.partial(promising, self.prior, task, self.evolution.population),
        )
        found = task.space.parse(best(candidates)["architecture"])
        return SearchOutcome(found, training, search_curve(candidates), candidates)
