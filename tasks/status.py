"""What of a run is done, and what came out, in a few lines for the terminal."""

from typing import Any

from nas_core.reporting.summary import label_rows, summary_lines
from storage.files import read_json
from storage.layout import RunLayout
from storage.manifests import Manifest, read_manifest
from tasks.grid import grid_points
from tasks.run import Run
from tasks.stage import piece_name
from tasks.stages import requested

LABEL_FIGURES = ("label_entropy", "label_confidence", "top1_drift", "top5_overlap")


def summary(layout: RunLayout) -> str:
    """The result as a small table for the terminal, and where to read on."""
    lines = summary_lines(read_json(layout.results))
    return "\n".join([*lines, f"report: {layout.report}"])


def progress_table(run: Run) -> str:
    """What of a run is done: one line per stage with its pieces and seconds."""
    expected = expected_pieces(run)
    width = max(map(len, expected))
    lines = [f"{run.config.name} in {run.directory}", f"{'stage':<{width}}  {'done':>9}  {'seconds':>8}"]
    for name, total in expected.items():
        if total == 0:
            continue
        manifests = stage_manifests(run, name)
        seconds = sum(manifest.seconds for manifest in manifests)
        lines.append(f"{name:<{width}}  {f'{len(manifests)}/{total}':>9}  {seconds:>8.1f}")
    labels = label_rounds(run)
    return "\n".join([*lines, *(f"{title}: {text}" for title, text in label_rows(labels))])


def expected_pieces(run: Run) -> dict[str, int]:
    """How many pieces each stage has, by its name, in the order of the pipeline; 0: the run does without it."""
    config, synthesis = run.config, run.config.synthesis
    return {
        "noise": 1,
        "learn": int(synthesis.engine.learns),
        "synthesis": synthesis.rounds * synthesis.shards,
        "dataset": 1,
        "costs": int(config.search.latency_table is not None),
        "grid": grid_points(config),
        "search": 1,
        "retrain": 1,
        **{training.name: 1 for training in requested(run)},
        "finetune": int(config.finetune is not None),
        "evaluate": 1,
        "latency": 1,
        "report": 1,
    }


def stage_manifests(run: Run, name: str) -> list[Manifest]:
    """Manifests of the finished pieces of a stage, in order."""
    paths = [path for path in run.layout.manifests() if path.name.startswith(name)]
    return [manifest for path in paths if (manifest := read_manifest(path)) is not None]


def label_rounds(run: Run) -> list[dict[str, Any]]:
    """The labels of each round that has finished shards: the mean over these of what `label_changes` says."""
    records = []
    for number in range(run.config.synthesis.rounds):
        shards = [m.figures for m in stage_manifests(run, piece_name("synthesis", {"round": number}))]
        if shards:
            means = {name: _mean([figures[name] for figures in shards]) for name in LABEL_FIGURES}
            records.append({"round": number} | means)
    return records


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
