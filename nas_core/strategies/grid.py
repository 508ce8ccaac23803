"""Several searches of which the best is kept: they do not know of each other, so that they may run side by side."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from nas_core.checkpoint import Checkpoint, Progress, no_progress
from nas_core.search_spaces.base import SearchSpace
from nas_core.strategies.base import SearchOutcome, SearchTask, Strategy
from nas_core.strategies.budget import Budget
from nas_core.strategies.candidates import candidate


class Grid(Strategy):
    """Independent searches; the one that returns the mixture with the lowest validation loss is kept.

    Args:
        points: The searches; each outcome has a `rated_loss`.
        settings: What sets each apart, as plain values for the records.
    """

    def __init__(self, points: Sequence[Strategy], settings: Sequence[Mapping[str, Any]]) -> None:
        self.points, self.settings = tuple(points), tuple(settings)

    def check(self, space: SearchSpace, budget: Budget) -> None:
        """Refuse what any of the searches refuses."""
        for point in self.points:
            point.check(space, budget)

    def search(self, task: SearchTask, checkpoint: Checkpoint, progress: Progress = no_progress) -> SearchOutcome:
        """Run the searches one after the other and keep the best; state is saved whenever one of them does."""
        self.check(task.space, task.budget)
        state = checkpoint.state or {"outcomes": [], "point": None}
        outcomes: list[dict[str, Any]] = list(state["outcomes"])
        for number in range(len(outcomes), len(self.points)):
            outcome = self.points[number].search(
                task,
                Checkpoint(
                    state["point"] if number == len(state["outcomes"]) else None,
                    lambda point: checkpoint.save({"outcomes": list(outcomes), "point": point}),
                ),
                lambda done, total, figures, number=number: progress(
                    number * total + done, total * len(self.points), figures
                ),
            )
            outcomes.append(outcome.state())
            checkpoint.save({"outcomes": list(outcomes), "point": None})
        return self.select(task.space, task.budget, [SearchOutcome.load(task.space, outcome) for outcome in outcomes])

    def select(self, space: SearchSpace, budget: Budget, outcomes: Sequence[SearchOutcome]) -> SearchOutcome:
        """The outcome that validates best, with all of them as its candidates.

        Args:
            space: Which was searched.
            budget: Which was kept.
            outcomes: One per point, in their order.
        """
        losses = [outcome.rated_loss for outcome in outcomes if outcome.rated_loss is not None]
        candidates = [
            candidate(space, budget, space.choices(outcome.architecture), {"score": -loss, "setting": dict(setting)}, 0)
            for outcome, loss, setting in zip(outcomes, losses, self.settings, strict=True)
        ]
        return dataclasses.replace(outcomes[losses.index(min(losses))], candidates=candidates)
