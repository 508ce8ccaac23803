"""Random search: random architectures, each trained on its own for a while; the one that validates best is kept.

The baseline without weight sharing. Source: Li and Talwalkar, arXiv:1902.07638, section 3.
"""

from typing import Any, Literal

from pydantic import Field

from nas_core.checkpoint import Checkpoint, Progress, no_progress
from nas_core.ops.initialisation import initialise
from nas_core.search_spaces.base import Choices
from nas_core.seeding import generator
from nas_core.strategies.base import SearchOutcome, SearchTask, Strategy, strategies
from nas_core.strategies.candidates import Candidate, best, candidate, negative_loss, search_curve
from nas_core.strategies.evolution import Evolution
from nas_core.training.loop import Trainee, train
from nas_core.training.recipe import Recipe


class RandomSearchSpec(Recipe):
    """Random search (Li and Talwalkar 2019): random architectures are trained alone and rated; no supernet."""

    name: Literal["random"] = "random"
    epochs: int = Field(default=10, ge=1, description="passes over the training images, for each architecture")
    warmup_epochs: int = Field(
        default=0, ge=0, description="epochs of linear warm-up before the cosine; fewer than epochs"
    )
    architectures: int = Field(default=10, ge=1, description="architectures that are drawn, all different")


@strategies.register(RandomSearchSpec)
class RandomSearch(Strategy):
    """Random search.

    Args:
        architectures: How many are drawn.
        recipe: The fields of `Recipe`, which say how each learns.
    """

    def __init__(self, *, architectures: int, **recipe: Any) -> None:
        self.recipe = Recipe(**recipe)
        self.architectures = architectures

    def search(self, task: SearchTask, checkpoint: Checkpoint, progress: Progress = no_progress) -> SearchOutcome:
        """Draw, train and rate; state is saved after every epoch."""
        self.check(task.space, task.max_macs)
        state = checkpoint.state or {"candidates": [], "training": [], "loop": None}
        candidates: list[Candidate] = list(state["candidates"])
        training: list[dict[str, Any]] = list(state["training"])
        loop = state["loop"]
        # A first generation of evolution has no parents: all of it is random, distinct, and within the budget.
        only_random = Evolution(self.architectures, parents=0, crossovers=0, mutants=0, mutation_probability=1.0)
        paths = only_random.propose(task.space, {}, task.max_macs, generator(task.seed, "search.random"))
        for number in range(len(candidates), len(paths)):
            before = {"candidates": list(candidates), "training": list(training)}
            score, records = self._rate(
                task,
                paths[number],
                number,
                Checkpoint(loop, lambda loop, before=before: checkpoint.save({**before, "loop": loop})),
                lambda done, total, figures, number=number: progress(
                    number * total + done, len(paths) * total, figures
                ),
            )
            loop = None
            training += [{**record, "epoch": number * self.recipe.epochs + record["epoch"]} for record in records]
            candidates.append(candidate(task.space, paths[number], score, number))
            checkpoint.save({"candidates": list(candidates), "training": list(training), "loop": None})
        found = task.space.parse(best(candidates)["architecture"])
        return SearchOutcome(found, training, search_curve(candidates), candidates)

    def _rate(
        self, task: SearchTask, path: Choices, number: int, checkpoint: Checkpoint, progress: Progress
    ) -> tuple[float, list[dict[str, Any]]]:
        """Train an architecture's own network; its score, and one record per epoch."""
        network = task.space.network(task.space.architecture(path))
        initialise(network, generator(task.seed, "search.random.weights", number))
        network.to(task.device)
        records = train(
            Trainee(network),
            task.train,
            self.recipe,
            task.objective,
            seed=task.seed,
            stage=f"search.random.{number}",
            checkpoint=checkpoint,
            progress=progress,
        )
        network.eval()
        return negative_loss(network, list(task.validation.fixed()), task.objective), records
