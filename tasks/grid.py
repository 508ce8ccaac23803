"""The independent searches of a strategy that is a grid, placed where the run's `execution` says."""

from prefect.futures import PrefectFuture

from nas_core.config import RunConfig
from nas_core.settings.differentiable import DifferentiableSpec
from storage.manifests import Manifest
from tasks.execution import outcome_of, placing
from tasks.run import Run
from tasks.stages import search_point


def grid_points(config: RunConfig) -> int:
    """How many independent searches the strategy is made of; 0: it is one search."""
    strategy = config.search.strategy
    points = len(strategy.grid) if isinstance(strategy, DifferentiableSpec) else 1
    return points if points > 1 else 0


def search_points(run: Run, dataset: PrefectFuture[Manifest], costs: list[PrefectFuture[Manifest]]) -> list[Manifest]:
    """All points of a strategy that is a grid, each a task, placed where the run's `execution` says; else none.

    If one fails, all others are made first.
    """
    count = grid_points(run.config)
    if not count:
        return []
    upstream = dataset.result(), [cost.result() for cost in costs]
    with placing(run.config.execution, run.layout.log) as runner:
        points = [search_point.submit(run, *upstream, runner=runner, point=i) for i in range(count)]
        outcomes = [outcome_of(point) for point in points]
    if failed := [outcome for outcome in outcomes if isinstance(outcome, Exception)]:
        raise failed[0]
    return outcomes
