"""Training-free search: architectures are scored with fresh weights, on a batch of noise or of synthetic images.

Scores of different kinds are put together by their ranks, as in AZ-NAS (Lee and Ham, arXiv:2403.19232, eq. 9): the
sum of log(rank / number of architectures), the best rank being that number.
"""

import math
from collections.abc import Sequence
from typing import Any, get_args

import torch
from torch import nn

from nas_core.checkpoint import Checkpoint, Progress, no_progress
from nas_core.evaluation.zero_cost import training_free_scores
from nas_core.ops.initialisation import initialise
from nas_core.search_spaces.base import Choices
from nas_core.seeding import generator
from nas_core.settings.strategies import (
    Images,
    Inputs,
    PriorSpec,
    Rated,
    Score,
    ScoresSpec,
    TrainingFreeSpec,
    strategies,
)
from nas_core.strategies.base import SearchOutcome, SearchTask, Strategy
from nas_core.strategies.budget import macs_budget, parameter_budget
from nas_core.strategies.candidates import Candidate, best, search_curve
from nas_core.strategies.evolution import Evolution
from nas_core.training.batches import Batch

SCORES: tuple[Score, ...] = get_args(Score)
# What a score's paper showed the networks: AZ-NAS noise, the others images. Synflow makes an input of its own.
PUBLISHED: dict[Score, Images] = {
    "expressivity": "noise",
    "progressivity": "noise",
    "trainability": "noise",
    "synflow": "noise",
    "naswot": "synthetic",
    "zico": "synthetic",
}


def images_of(score: Score, inputs: Inputs) -> Images:
    """Which images a score looks at."""
    return PUBLISHED[score] if inputs == "published" else inputs


class TrainingFreeRating:
    """Scores the stand-alone networks of architectures; the same images and the same seed for each.

    Args:
        task: The space, the teacher, and the images, of which the training set's are used.
        scores: Which ones.
        images: How many images; of synthetic ones, the full batches of one epoch if they hold fewer.
        inputs: Noise, synthetic images, or for each score what its paper took.
    """

    def __init__(self, task: SearchTask, scores: Sequence[Rated], images: int, inputs: Inputs) -> None:
        self._task, self._names = task, tuple(scores)
        self._costs = [cost for cost in (macs_budget(), parameter_budget()) if cost.name in scores]
        self._groups: list[tuple[Batch, list[Score]]] = []
        for kind, make in (("noise", _noise), ("synthetic", _synthetic)):
            chosen: list[Score] = [name for name in SCORES if name in scores and kind == images_of(name, inputs)]
            if chosen:
                self._groups.append((make(task, images, generator(task.seed, "search.training-free.images")), chosen))

    @classmethod
    def of(cls, spec: ScoresSpec, task: SearchTask) -> "TrainingFreeRating":
        """By a section of settings."""
        return cls(task, spec.scores, spec.images, spec.inputs)

    def __call__(self, path: Choices) -> dict[str, Any]:
        """The figures of an architecture: {"scores": {name: value, or None where it cannot be scored}}."""
        space = self._task.space
        found: dict[str, float] = {cost.name: float(cost.of(space, path)) for cost in self._costs}
        if self._groups:
            found |= self._network_scores(space.network(space.architecture(path)).to(self._task.device))
        return {"scores": {name: found[name] if math.isfinite(found[name]) else None for name in self._names}}

    def _network_scores(self, network: nn.Module) -> dict[str, float]:
        seed, found = self._task.seed, {}
        for batch, scores in self._groups:
            initialise(network, generator(seed, "search.training-free.weights"))
            signs = generator(seed, "search.training-free.signs")
            found |= training_free_scores(network, batch, scores, signs)
        return found


def _noise(task: SearchTask, count: int, draws: torch.Generator) -> Batch:
    images = torch.randn(count, *task.space.input_shape, generator=draws).to(task.device)
    return Batch(images, task.train.teacher.logits(images))


def _synthetic(task: SearchTask, count: int, draws: torch.Generator) -> Batch:
    parts: list[Batch] = []
    for batch in task.train.epoch(draws):
        parts.append(batch)
        if sum(len(part.images) for part in parts) >= count:
            break
    images, logits = (
        torch.cat(tensors) for tensors in zip(*((p.images, p.teacher_logits) for p in parts), strict=True)
    )
    return Batch(images[:count], logits[:count])


def log_rank_sums(figures: Sequence[dict[str, float | None]]) -> list[float]:
    """One number from several scores of each of N architectures: the sum over scores of log(rank / N), <= 0.

    Args:
        figures: Per architecture the same names with its scores, None where it has none, which is worse than any.

    Returns:
        Per architecture; the best rank is N, equals share the mean of their ranks.
    """
    totals = [0.0] * len(figures)
    for name in figures[0] if figures else ():
        column = [-math.inf if (value := row[name]) is None else value for row in figures]
        order = sorted(column)
        first = {value: order.index(value) for value in set(column)}
        for index, value in enumerate(column):
            rank = first[value] + (column.count(value) + 1) / 2
            totals[index] += math.log(rank / len(figures))
    return totals


def compared(candidates: list[Candidate]) -> list[Candidate]:
    """The candidates with the scores that their ranks among each other give them."""
    totals = log_rank_sums([candidate["scores"] for candidate in candidates])
    return [{**candidate, "score": total} for candidate, total in zip(candidates, totals, strict=True)]


def promising(prior: PriorSpec, task: SearchTask, count: int) -> list[Choices]:
    """The most promising architectures within the budget.

    Args:
        prior: By which scores, and of how many.
        task: The space, the images, the budget and the seed.
        count: How many; fewer if the space has fewer.

    Returns:
        The best first.
    """
    pool = Evolution.random(max(count, prior.pool))
    rating = TrainingFreeRating.of(prior, task)
    drawn = compared(pool.run(task, rating, Checkpoint(), lambda *_: None))
    leaders = sorted(drawn, key=lambda candidate: -candidate["score"])[:count]
    return [task.space.choices(task.space.parse(leader["architecture"])) for leader in leaders]


@strategies.register(TrainingFreeSpec)
class TrainingFree(Strategy):
    """Evolution by training-free scores.

    Args:
        scores: Names of the scores whose ranks are put together.
        images: Images that every architecture is scored on.
        inputs: Noise, synthetic images, or for each score what its paper took.
        evolution: The fields of `EvolutionSpec`.
    """

    def __init__(self, *, scores: Sequence[Rated], images: int, inputs: Inputs, **evolution: Any) -> None:
        self.scores, self.images = tuple(scores), images
        self.inputs: Inputs = inputs
        self.evolution = Evolution(**evolution)

    def search(self, task: SearchTask, checkpoint: Checkpoint, progress: Progress = no_progress) -> SearchOutcome:
        """Evolve; state is saved after every generation. A candidate's score compares it with all others rated."""
        self.check(task.space, task.budget)
        total = self.evolution.generations * self.evolution.population
        candidates = self.evolution.run(
            task,
            TrainingFreeRating(task, self.scores, self.images, self.inputs),
            checkpoint,
            lambda done, figures: progress(done, total, figures),
            compared,
        )
        found = task.space.parse(best(candidates)["architecture"])
        return SearchOutcome(found, [], search_curve(candidates), candidates)
