"""Differentiable search: runs of a grid, each of one or more stages, each of which trains a `Mixture`.

Source: Liu, Simonyan and Yang, "DARTS: Differentiable Architecture Search", arXiv:1806.09055; for the parts see
`parts.DifferentiableSpec`, for published combinations `presets`.
"""

from collections.abc import Mapping
from typing import Any

import torch

from nas_core.checkpoint import Checkpoint, Progress, no_progress
from nas_core.errors import InputError
from nas_core.search_spaces.base import SearchSpace
from nas_core.strategies.alpha import edge_groups
from nas_core.strategies.base import SearchOutcome, SearchTask, Strategy, strategies
from nas_core.strategies.budget import check_budget
from nas_core.strategies.mixture import Mixture
from nas_core.strategies.parts import DifferentiableSpec
from nas_core.strategies.progressive import keeps_budget
from nas_core.training.loop import train


@strategies.register(DifferentiableSpec)
class Differentiable(Strategy):
    """Every method of differentiable search.

    Args:
        settings: The fields of `DifferentiableSpec`.
    """

    def __init__(self, **settings: Any) -> None:
        self.settings = DifferentiableSpec(**settings)

    def check(self, space: SearchSpace, max_macs: int | None) -> None:
        """Refuse a space without what the parts need, such as edges, channels to divide, or cells to add."""
        check_budget(space, max_macs)
        progression, partial = self.settings.progression, self.settings.partial
        if not keeps_budget(space, progression.excluded(space), max_macs):
            raise InputError(
                f"no architecture of {space.name} without `none` keeps max_macs = {max_macs}; raise it, or set "
                f"strategy.progression.none_allowed to true"
            )
        if partial.edge_normalisation:
            edge_groups(space)
        for stage in progression.stages:
            deep = space.deepened(stage.extra_cells) if stage.extra_cells else space
            if partial.divisor > 1:
                # Nothing is computed or kept on this device, but a space says here what it cannot divide.
                with torch.device("meta"):
                    deep.supernet(partial=partial.divisor)

    def search(self, task: SearchTask, checkpoint: Checkpoint, progress: Progress = no_progress) -> SearchOutcome:
        """Run the grid and keep the run with the lowest validation loss; state is saved after every epoch."""
        self.check(task.space, task.max_macs)
        state = checkpoint.state or {"outcomes": [], "run": None}
        outcomes: list[dict[str, Any]] = list(state["outcomes"])
        steps = self.settings.epochs * len(self.settings.progression.stages) * len(task.train)
        for index in range(len(outcomes), len(self.settings.grid)):
            done = index * steps
            found = self._run(
                self.settings.at(self.settings.grid[index]),
                task,
                Checkpoint(
                    state["run"] if index == len(state["outcomes"]) else None,
                    lambda run: checkpoint.save({"outcomes": list(outcomes), "run": run}),
                ),
                lambda step, _, figures, done=done: progress(done + step, steps * len(self.settings.grid), figures),
            )
            outcomes.append(found)
            checkpoint.save({"outcomes": list(outcomes), "run": None})
        return self._best(task, outcomes)

    def _best(self, task: SearchTask, outcomes: list[dict[str, Any]]) -> SearchOutcome:
        """The run that validates best, as the outcome; with several runs, all of them as its candidates."""
        candidates = [
            {
                "architecture": outcome["architecture"],
                "macs": task.space.macs(task.space.choices(task.space.parse(outcome["architecture"]))),
                "score": -outcome["search"][-1]["validation_loss"],
                "generation": 0,
                "setting": point.model_dump(exclude_none=True),
            }
            for outcome, point in zip(outcomes, self.settings.grid, strict=True)
        ]
        best = max(range(len(outcomes)), key=lambda index: candidates[index]["score"])
        kept = outcomes[best]
        return SearchOutcome(
            task.space.parse(kept["architecture"]),
            kept["training"],
            kept["search"],
            candidates if len(candidates) > 1 else [],
        )

    def _run(
        self, settings: DifferentiableSpec, task: SearchTask, checkpoint: Checkpoint, progress: Progress
    ) -> dict[str, Any]:
        """One run through all stages: {"architecture", "training", "search"}, as `SearchOutcome` has them."""
        state: Mapping[str, Any] = checkpoint.state or {
            "stage": 0,
            "kept": {},
            "training": [],
            "search": [],
            "loop": None,
        }
        kept, training, curve = state["kept"], list(state["training"]), list(state["search"])
        loop, architecture = state["loop"], ""
        for number in range(state["stage"], len(settings.progression.stages)):
            stage = settings.progression.stages[number]
            space = task.space.restrict(kept)
            deep = space.deepened(stage.extra_cells) if stage.extra_cells else space
            mixture = Mixture(task.supernet(deep, settings.partial.divisor), task, space, settings, number)
            before = {"stage": number, "kept": kept, "training": list(training), "search": list(curve)}
            records = train(
                mixture,
                task.train,
                settings,
                task.objective,
                seed=task.seed,
                stage=f"search.{number}",
                checkpoint=Checkpoint(loop, lambda loop, before=before: checkpoint.save({**before, "loop": loop})),
                progress=lambda done, total, figures, number=number: progress(number * total + done, total, figures),
            )
            training += [{**record, "epoch": number * settings.epochs + record["epoch"]} for record in records]
            curve += mixture.curve
            loop, last = None, number + 1 == len(settings.progression.stages)
            if not last:
                allowed = settings.progression.stages[number + 1].operations
                kept = settings.progression.survivors(mixture.alpha, space, allowed, task.max_macs)
            stopped = mixture.stop_epoch()
            architecture = curve[-1 if stopped is None else stopped]["architecture"]
        return {"architecture": architecture, "training": training, "search": curve}
