"""Search: the architecture that a strategy finds on the synthetic images."""

from dataclasses import asdict

from nas_core.reporting.figures import record_curves
from nas_core.reporting.search_figures import score_by_generation
from nas_core.strategies import SearchOutcome, SearchTask, strategies
from storage.files import digest_of_json, write_json
from storage.manifests import Manifest
from tasks.artifacts import show_pictures, task_progress
from tasks.data import batches, load_images
from tasks.run import Run
from tasks.stage import Product, stage, stage_checkpoint


@stage("search", version=2, sections=("search", "evaluation.held_out"))
def search_architecture(run: Run, piece: str, key: str, _dataset: Manifest) -> Product:
    """Search the space with the strategy, against the teacher's soft labels, under the budget."""
    config = run.config.search
    images, split = load_images(run)
    space = run.space()
    task = SearchTask(
        space=space,
        train=batches(run, images, split.train, config.batch_size),
        validation=batches(run, images, split.validation, config.batch_size),
        max_macs=config.max_macs,
        temperature=config.temperature,
        seed=run.config.seed,
        device=run.teacher().device,
    )
    strategy = strategies.build(config.strategy)
    outcome = strategy.search(task, stage_checkpoint(run, piece, key), task_progress(piece, run.artifact("search")))
    architecture = outcome.architecture
    macs = space.macs(space.choices(architecture))
    records = {
        "architecture": architecture.notation,
        "macs": macs,
        "slots": [asdict(slot) for slot in space.slots],
        "operations": list(architecture.operations),
        "training": outcome.training,
        "search": outcome.search,
        "candidates": outcome.candidates,
        "front": outcome.front,
    }
    write_json(run.layout.search, records)
    _show_curve(run, outcome)
    return Product(
        digest=digest_of_json(records),
        files=[run.layout.search],
        figures={"architecture": architecture.notation, "macs": macs},
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
