"""Successive halving: many architectures are trained on their own for a while, the better ones longer.

Source: Jamieson and Talwalkar, arXiv:1502.07943; the first architectures are the most promising of a random pool by
training-free scores, or random. With a single rung it is random search (Li and Talwalkar, arXiv:1902.07638, section 3),
the baseline without weight sharing.
"""

import math
from typing import Any

from nas_core.checkpoint import Checkpoint, Progress, no_progress
from nas_core.ops.initialisation import initialise
from nas_core.search_spaces.base import Choices
from nas_core.seeding import generator
from nas_core.settings.strategies import PriorSpec, SuccessiveHalvingSpec, strategies
from nas_core.strategies.base import SearchOutcome, SearchTask, Strategy
from nas_core.strategies.candidates import Candidate, best, candidate, search_curve
from nas_core.strategies.evolution import Evolution
from nas_core.strategies.rating import Rating
from nas_core.strategies.training_free import promising
from nas_core.training.loop import Trainee, train
from nas_core.training.recipe import Recipe


@strategies.register(SuccessiveHalvingSpec)
class SuccessiveHalving(Strategy):
    """Successive halving.

    Args:
        architectures: How many the first rung has.
        rungs: How many rungs.
        eta: What divides their number and multiplies their epochs from rung to rung.
        recalibration_batches: Training batches for the BatchNorm statistics that a trained network is rated under.
        prior: Chooses the first ones; None: random.
        recipe: The fields of `Recipe`, which say how each learns in the first rung.
    """

    def __init__(
        self,
        *,
        architectures: int,
        rungs: int,
        eta: int,
        recalibration_batches: int,
        prior: PriorSpec | None,
        **recipe: Any,
    ) -> None:
        self.recipe = Recipe(**recipe)
        self.architectures, self.rungs, self.eta, self.prior = architectures, rungs, eta, prior
        self.recalibration_batches = recalibration_batches

    def search(self, task: SearchTask, checkpoint: Checkpoint, progress: Progress = no_progress) -> SearchOutcome:
        """Draw, then train and rate rung by rung; state is saved after every epoch.

        A candidate's score is that of its last rung, its generation that rung; the result is the best of the last one.
        """
        self.check(task.space, task.budget)
        state = checkpoint.state or {"first": None, "rated": [], "training": [], "loop": None}
        first = state["first"] or self._first(task)
        rated: list[Candidate] = list(state["rated"])
        training: list[dict[str, Any]] = list(state["training"])
        loop = state["loop"]

        def save(loop: dict[str, Any] | None) -> None:
            checkpoint.save({"first": first, "rated": list(rated), "training": list(training), "loop": loop})

        sizes = [max(1, len(first) // self.eta**rung) for rung in range(self.rungs)]
        epochs = [self.recipe.epochs * self.eta**rung for rung in range(self.rungs)]
        whole = sum(math.prod(pair) for pair in zip(sizes, epochs, strict=True)) * len(task.train)
        if checkpoint.state is None:
            save(None)
        rating = Rating(task, self.recalibration_batches)
        for rung, (size, length) in enumerate(zip(sizes, epochs, strict=True)):
            before = [record for record in rated if record["generation"] == rung - 1]
            leaders = sorted(before, key=lambda record: -record["score"])
            entrants = [record["architecture"] for record in leaders][:size] if rung else first
            done = sum(record["generation"] == rung for record in rated)
            for number in range(done, len(entrants)):
                past = len(training) * len(task.train)
                path = task.space.choices(task.space.parse(entrants[number]))
                score, records = self._rate(
                    task,
                    rating,
                    path,
                    self.recipe.model_copy(update={"epochs": length}),
                    (rung, number),
                    Checkpoint(loop, save),
                    lambda done, _, figures, past=past: progress(past + done, whole, figures),
                )
                loop = None
                training += [{**record, "epoch": len(training) + record["epoch"]} for record in records]
                rated.append(candidate(task.space, task.budget, path, {"score": score}, rung))
                save(None)
        last = {record["architecture"]: record for record in rated}
        found = best([record for record in rated if record["generation"] == self.rungs - 1])
        return SearchOutcome(
            task.space.parse(found["architecture"]), training, search_curve(rated, anew=True), list(last.values())
        )

    def _first(self, task: SearchTask) -> list[str]:
        """The architectures of the first rung, in the space's notation."""
        if self.prior is not None:
            paths = promising(self.prior, task, self.architectures)
        else:
            draws = generator(task.seed, "search.random")
            paths = Evolution.random(self.architectures).propose(task.space, {}, task.budget, draws)
        return [str(task.space.architecture(path)) for path in paths]

    def _rate(
        self,
        task: SearchTask,
        rating: Rating,
        path: Choices,
        recipe: Recipe,
        position: tuple[int, int],
        checkpoint: Checkpoint,
        progress: Progress,
    ) -> tuple[float, list[dict[str, Any]]]:
        """Train an architecture's own network; its score, and one record per epoch."""
        network = task.space.network(task.space.architecture(path))
        initialise(network, generator(task.seed, "search.alone.weights", *position))
        network.to(task.device)
        records = train(
            Trainee(network),
            task.train,
            recipe,
            task.objective,
            seed=task.seed,
            stage=f"search.alone.{position[0]}.{position[1]}",
            checkpoint=checkpoint,
            progress=progress,
        )
        return rating(network), records
