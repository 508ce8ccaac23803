"""Search: the architecture that a strategy finds on the synthetic images."""

from dataclasses import asdict
from typing import Any

from nas_core.config import RunConfig
from nas_core.strategies import Grid, SearchOutcome, SearchTask, strategies
from storage.files import digest_of_json, read_json, write_json
from storage.manifests import Manifest
from tasks.data import batches, load_images
from tasks.progress import progress_bar
from tasks.run import Run
from tasks.stage import Product, stage, stage_checkpoint


def grid_points(config: RunConfig) -> int:
    """How many independent searches the strategy is made of; 0: it is one search."""
    strategy = strategies.build(config.search.strategy)
    return len(strategy.points) if isinstance(strategy, Grid) else 0


@stage("grid", version=1, sections=("search", "evaluation.held_out"))
def search_point(run: Run, piece: str, key: str, _dataset: Manifest, _costs: list[Manifest], *, point: int) -> Product:
    """Search with one point of the strategy's grid; points do not know of each other."""
    strategy = strategies.build(run.config.search.strategy)
    assert isinstance(strategy, Grid)
    outcome = strategy.points[point].search(search_task(run), stage_checkpoint(run, piece, key), progress_bar(piece))
    path = run.layout.records(piece)
    write_json(path, outcome.state())
    last: dict[str, Any] = outcome.search[-1]
    return Product(
        digest=digest_of_json(outcome.state()),
        files=[path],
        figures={"architecture": outcome.architecture.notation, "validation_loss": last["validation_loss"]},
    )


@stage("search", version=3, sections=("search", "evaluation.held_out"))
def search_architecture(
    run: Run, piece: str, key: str, _dataset: Manifest, _costs: list[Manifest], points: list[Manifest]
) -> Product:
    """Search the space with the strategy, against the teacher's soft labels, under the budget.

    Of a strategy that is a grid the points are there already, and the one that validates best is kept.
    """
    space, budget = run.space(), run.budget()
    strategy = strategies.build(run.config.search.strategy)
    if isinstance(strategy, Grid):
        states = [read_json(run.layout.records(point.piece)) for point in points]
        outcome = strategy.select(space, budget, [SearchOutcome.load(space, state) for state in states])
    else:
        outcome = strategy.search(search_task(run), stage_checkpoint(run, piece, key), progress_bar(piece))
    architecture = outcome.architecture
    costs = budget.record(space, space.choices(architecture))
    records = {
        **outcome.state(),
        **costs,
        "slots": [asdict(slot) for slot in space.slots],
        "operations": list(architecture.operations),
        "front": outcome.front(budget.name),
    }
    write_json(run.layout.search, records)
    return Product(
        digest=digest_of_json(records),
        files=[run.layout.search],
        figures={"architecture": architecture.notation, **costs},
    )


def search_task(run: Run) -> SearchTask:
    """What a strategy works on: the space, the synthetic images that are not held out, and the budget."""
    config = run.config.search
    images, split = load_images(run)
    return SearchTask(
        space=run.space(),
        train=batches(run, images, split.train, config.batch_size),
        validation=batches(run, images, split.validation, config.batch_size),
        budget=run.budget(),
        temperature=config.temperature,
        seed=run.config.seed,
        device=run.teacher().device,
    )
