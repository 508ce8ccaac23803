"""Search: the architecture that a strategy finds on the synthetic images."""

from dataclasses import asdict

from nas_core.device import limited_threads
from nas_core.reporting.figures import record_curves
from nas_core.reporting.search_figures import score_by_generation
from nas_core.strategies import Grid, SearchOutcome, SearchTask, strategies
from nas_core.training.augmentation import Augmentation
from storage.files import digest_of_json, read_json, write_json
from storage.manifests import Manifest
from tasks.artifacts import show_pictures, task_progress
from tasks.data import batches, load_images
from tasks.run import Run
from tasks.stage import Product, stage_checkpoint


def search_point(run: Run, piece: str, key: str, _dataset: Manifest, _costs: list[Manifest], *, point: int) -> Product:
    """Search with one point of the strategy's grid; points do not know of each other."""
    strategy = strategies.build(run.config.search.strategy)
    assert isinstance(strategy, Grid)
    with limited_threads(run.config.execution.shard_threads()):
        outcome = strategy.points[point].search(
            search_task(run), stage_checkpoint(run, piece, key), task_progress(piece)
        )
    path = run.layout.records(piece)
    write_json(path, outcome.state())
    return Product(
        digest=digest_of_json(outcome.state()),
        files=[path],
        figures={"architecture": outcome.architecture.notation, "rated_loss": outcome.rated_loss},
    )


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
        outcome = strategy.search(
            search_task(run), stage_checkpoint(run, piece, key), task_progress(piece, run.artifact("search"))
        )
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
    _show_curve(run, outcome)
    return Product(
        digest=digest_of_json(records),
        files=[run.layout.search],
        figures={"architecture": architecture.notation, **costs},
    )


def search_task(run: Run) -> SearchTask:
    """What a strategy works on: the space, the synthetic images that are not held out, and the budget."""
    config = run.config.search
    images, split = load_images(run)
    shifted = Augmentation(mixup=config.validation_mixup, color_jitter=config.validation_color_jitter)
    return SearchTask(
        space=run.space(),
        train=batches(run, images, split.train, config.batch_size),
        validation=batches(run, images, split.validation, config.batch_size, shifted),
        budget=run.budget(),
        temperature=config.temperature,
        seed=run.config.seed,
        device=run.teacher().device,
    )


def _show_curve(run: Run, outcome: SearchOutcome) -> None:
    """Show in Prefect how the search went: its rated architectures, or else the training of its supernet."""
    if outcome.candidates:
        curve, what = score_by_generation(outcome.candidates), "scores of the rated architectures"
    elif outcome.training:
        curve, what = record_curves(outcome.training), "training of the supernet"
    else:
        return
    search = run.config.search
    caption = f"{search.strategy.name} on {search.space.name}: {what}; found `{outcome.architecture}`"
    show_pictures(
        run.artifact("search-curve"), "Search", [(curve, caption)], "The search over its generations or epochs"
    )
