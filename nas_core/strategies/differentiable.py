"""Differentiable search: one or more stages, each of which trains a `Mixture`; a grid makes several searches of it.

Source: Liu, Simonyan and Yang, "DARTS: Differentiable Architecture Search", arXiv:1806.09055; for the parts see
`DifferentiableSpec`, for published combinations `nas_core.settings.presets`.
"""

from collections.abc import Mapping
from typing import Any

import torch

from nas_core.checkpoint import Checkpoint, Progress, no_progress
from nas_core.errors import InputError
from nas_core.search_spaces.base import SearchSpace
from nas_core.settings.differentiable import DifferentiableSpec
from nas_core.settings.strategies import strategies
from nas_core.strategies.alpha import edge_groups
from nas_core.strategies.base import SearchOutcome, SearchTask, Strategy
from nas_core.strategies.budget import Budget
from nas_core.strategies.grid import Grid
from nas_core.strategies.mixture import Mixture
from nas_core.strategies.progressive import excluded, keeps_budget, survivors
from nas_core.training.loop import train


class Differentiable(Strategy):
    """Every method of differentiable search.

    Args:
        settings: The fields of `DifferentiableSpec`; its grid is not for here, see `differentiable`.
    """

    def __init__(self, **settings: Any) -> None:
        self.settings = DifferentiableSpec(**settings)

    def check(self, space: SearchSpace, budget: Budget) -> None:
        """Refuse a space without what the parts need, such as edges, channels to divide, or cells to add."""
        budget.check(space)
        progression, partial = self.settings.progression, self.settings.partial
        if not keeps_budget(space, excluded(progression, space), budget):
            raise InputError(
                f"no architecture of {space.name} without `none` keeps {budget.setting} = "
                f"{budget.written(budget.limit or 0)}; raise it, or set "
                f"strategy.progression.none_allowed to true"
            )
        if partial.edge_normalisation:
            edge_groups(space, "edge normalisation")
        if self.settings.regularisation.drop_path > 0:
            # Where a choice is a whole block, an image that loses it loses all that came before.
            edge_groups(space, "drop-path in the search")
        for stage in progression.stages:
            deep = space.deepened(stage.extra_cells) if stage.extra_cells else space
            if partial.divisor > 1:
                # Nothing is computed or kept on this device, but a space says here what it cannot divide.
                with torch.device("meta"):
                    deep.supernet(partial=partial.divisor)

    def search(self, task: SearchTask, checkpoint: Checkpoint, progress: Progress = no_progress) -> SearchOutcome:
        """Run all stages; state is saved after every epoch."""
        self.check(task.space, task.budget)
        settings = self.settings
        state: Mapping[str, Any] = checkpoint.state or {
            "stage": 0,
            "kept": {},
            "training": [],
            "search": [],
            "loop": None,
        }
        kept, training, curve = state["kept"], list(state["training"]), list(state["search"])
        loop, architecture, rated_loss = state["loop"], "", None
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
                progress=lambda done, total, figures, number=number: progress(
                    number * total + done, total * len(settings.progression.stages), figures
                ),
            )
            training += [{**record, "epoch": number * settings.epochs + record["epoch"]} for record in records]
            curve += mixture.curve
            loop, last = None, number + 1 == len(settings.progression.stages)
            if not last:
                allowed = settings.progression.stages[number + 1].operations
                kept = survivors(settings.progression, mixture.alpha, space, allowed, task.budget)
            stopped = mixture.stop_epoch()
            returned = len(mixture.curve) - 1 if stopped is None else stopped
            architecture, rated_loss = mixture.curve[returned]["architecture"], mixture.rated_losses.get(returned)
        return SearchOutcome(task.space.parse(architecture), training, curve, rated_loss=rated_loss)


@strategies.register(DifferentiableSpec)
def differentiable(**settings: Any) -> Strategy:
    """The strategy of a `DifferentiableSpec`, of which `settings` are the fields: one search, or a grid of them."""
    whole = DifferentiableSpec(**settings)
    points = [Differentiable(**whole.at(point).values()) for point in whole.grid]
    if len(points) == 1:
        return points[0]
    return Grid(points, [point.model_dump(exclude_none=True) for point in whole.grid])
