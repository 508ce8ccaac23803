"""Results and report: everything that the stages left, put together for people and programs to read."""

from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from nas_core.evaluation.dataset_quality import class_affinity
from nas_core.reporting.imported import image_kind, imported_sentence
from nas_core.reporting.page import render, report_sections
from nas_core.reporting.picture import figure_files
from nas_core.reporting.records import RunRecords
from nas_core.reporting.summary import comparison, computing_seconds
from nas_core.reporting.wording import duration
from nas_core.seeding import generator
from storage.dataset import SyntheticImages, SyntheticStore
from storage.files import digest_of_file, read_json, write_bytes, write_json
from storage.manifests import Manifest, Provenance, digests_of_files, read_manifest
from tasks.artifacts import show_link, show_text
from tasks.building import accuracy_table
from tasks.data import batches, first_images, open_images, shown_classes
from tasks.run import Run, locked, refuse_unfinished
from tasks.stage import Product, piece_name
from tasks.stages import requested
from tasks.status import label_rounds, stage_manifests
from tasks.verification import check_pieces

# What a report is made from, whatever the run was asked for.
READ = ("dataset", "search", "retrain", "evaluate")
# Result key of the digest of what these stages made.
DIGESTS = {"dataset": "dataset", "search": "search", "retrain": "model", "finetune": "finetuned"}
# Result key of the time that each stage's pieces took together.
TIMED_STAGES = {"synthesis": "synthesis", "search": "search", "retrain": "retrain", "evaluate": "evaluation"}


def write_report(run: Run, _piece: str, _key: str, _stages: list[Manifest], _shards: list[Manifest]) -> Product:
    """Write results.json, report.html and figures/, and show the result in Prefect."""
    product, layout = _write(run), run.layout
    show_text(run.artifact(), _result_markdown(run, product.figures), "Result of a dfnas run")
    show_link(run.artifact("report"), layout.report.as_uri(), "report.html", f"The whole report: {layout.report}")
    return product


def rewrite_report(run: Run) -> dict[str, Any]:
    """Write results.json, report.html and figures/ of a run anew, from what the finished stages left.

    Returns:
        The content of results.json.

    Raises:
        InputError: If the run has not come to its evaluation, or is being worked on.
        StorageError: If a file that the report is made from is missing or damaged.
    """
    layout = run.layout
    refuse_unfinished(run, layout.evaluation)
    with locked(layout.root):
        there = [path.stem for path in layout.manifests()]
        check_pieces(layout, *READ, *(piece for piece in there if piece.startswith(("learn", "synthesis", "latency"))))
        product = _write(run)
        path = layout.manifest("report")
        if (before := read_manifest(path)) is not None:
            files = digests_of_files(layout.root, list(product.files))
            before.model_copy(update={"digest": product.digest, "files": files, "figures": product.figures}).write(path)
    return product.figures


def _write(run: Run) -> Product:
    """Write the files; the figures are the content of results.json."""
    layout = run.layout
    results = _results(run)
    records = report_records(run, results)
    sections = report_sections(records)
    page = render(records, sections)
    figures = {layout.figures / name: content for name, content in figure_files(sections).items()}
    write_json(layout.results, results)
    write_bytes(layout.report, page.encode())
    for path, content in figures.items():
        write_bytes(path, content)
    files = [layout.results, layout.report, *figures]
    return Product(digest=digest_of_file(layout.results), files=files, figures=results)


def _results(run: Run) -> dict[str, Any]:
    """The figures with their stable keys."""
    config, figures = run.config, read_json(run.layout.evaluation)
    # Not there in a run of an earlier version.
    latency = read_json(run.layout.latency) if run.layout.latency.exists() else {}
    device = latency["machine"]["device"] if latency else str(run.teacher().device)
    manifests = {name: stage_manifests(run, name) for name in ("dataset", "finetune", *TIMED_STAGES)}
    timings = {key: sum(m.seconds for m in manifests[name]) for name, key in TIMED_STAGES.items()}
    if config.finetune is not None:
        timings["finetuning"] = sum(m.seconds for m in stage_manifests(run, "finetune"))
    if config.baselines:
        timings["baselines"] = sum(
            m.seconds for training in requested(run) for m in stage_manifests(run, training.name)
        )
    found, table = read_json(run.layout.search), accuracy_table(config)
    for extra, key in {"learn": "synthesis", "grid": "search", "latency": "evaluation"}.items():
        timings[key] += sum(m.seconds for m in stage_manifests(run, extra))
    return {
        "name": config.name,
        "seed": config.seed,
        "device": device,
        "teacher": {
            "name": run.teacher_name,
            "fingerprint": run.fingerprint,
            "classes": run.teacher().num_classes,
            **figures["teacher"],
            **latency.get("teacher", {}),
        },
        "student": figures["student"] | latency.get("student", {}),
        "latency": latency.get("machine"),
        "baselines": figures.get("baselines"),
        "finetuned": figures.get("finetuned"),
        "search": {
            "architecture": found["architecture"],
            "strategy": config.search.strategy.name,
            "space": config.search.space.name,
            "true_accuracy": None if table is None else table.accuracies.get(found["architecture"]),
            "table_latency_ms": found.get("latency_ms"),
        },
        "retrain": {name: getattr(config.retrain, name) for name in ("style", "epochs", "width", "cells")},
        "synthesis": {
            "images": config.synthesis.images,
            "rounds": config.synthesis.rounds,
            "labels": label_rounds(run),
            "imported": SyntheticStore.open(run.layout.dataset).provenance.get("imported"),
        },
        "quality": {name: value for name, value in _dataset_records(run).items() if name != "batch_norm_distances"},
        "evaluation": figures["evaluation"],
        "timings": {**timings, "total": sum(timings.values())},
        "digests": {key: m.digest for name, key in DIGESTS.items() for m in manifests[name]},
        # Of the run: another dfnas may write the report.
        "versions": Provenance.read(run.layout.provenance).versions,
    }


def _dataset_records(run: Run) -> dict[str, Any]:
    """The data-free measures of the images; empty if there are none."""
    found = [read_json(run.layout.records(manifest.piece)) for manifest in stage_manifests(run, "dataset")]
    return found[0] if found else {}


def report_records(run: Run, results: dict[str, Any]) -> RunRecords:
    """What the page shows.

    Args:
        run: A finished run.
        results: The content of its results.json.
    """
    found, table = read_json(run.layout.search), accuracy_table(run.config)
    space, teacher = run.space(), run.teacher()
    images = open_images(run)
    shown = shown_classes(images)
    return RunRecords(
        results=results,
        config_yaml=run.layout.config.read_text(),
        class_names=teacher.class_names,
        shown_classes=shown,
        image_grid=first_images(images, shown),
        image_counts=_image_counts(images),
        target_prediction=_target_prediction(run, images),
        class_affinity=_class_affinity(images),
        synthesis_history=_synthesis_history(run),
        batch_norm_distances=_dataset_records(run).get("batch_norm_distances", {}),
        learning_history=[
            record for m in stage_manifests(run, "learn") for record in read_json(run.layout.records(m.piece))
        ],
        slots=space.slots,
        architecture=space.parse(found["architecture"]),
        search_training=found["training"],
        search_curve=found["search"],
        search_candidates=found["candidates"],
        anytime=[] if table is None else table.along(found["search"]),
        retrain_history=read_json(run.layout.training),
    )


def _synthesis_history(run: Run) -> list[dict[str, Any]]:
    config = run.config.synthesis
    positions = [{"round": r, "shard": s} for r in range(config.rounds) for s in range(config.shards)]
    return [
        position | record
        for position in positions
        for record in read_json(run.layout.records(piece_name("synthesis", position)))
    ]


def _image_counts(images: SyntheticImages) -> Int64[Tensor, "rounds classes"]:
    """Images by round and class asked for in it."""
    rounds, classes = int(images.rounds.max()) + 1, images.targets.shape[1]
    cells = images.rounds.long() * classes + images.targets.argmax(1)
    return cells.bincount(minlength=rounds * classes).reshape(rounds, classes)


def _target_prediction(run: Run, images: SyntheticImages) -> Float[Tensor, "classes classes"]:
    """Mean prediction of the teacher on fresh windows per target class; NaN for classes without images."""
    all_of_them = batches(run, images, torch.arange(len(images)), batch_size=256)
    predictions = all_of_them.fresh_predictions(generator(run.config.seed, "report.windows")).cpu()
    return class_affinity(images.targets, predictions)


def _class_affinity(images: SyntheticImages) -> Float[Tensor, "classes classes"]:
    """Which classes the labels of the last round join."""
    last = images.rounds == images.rounds.max()
    return class_affinity(images.targets[last], images.soft_labels[last])


def _result_markdown(run: Run, results: dict[str, Any]) -> str:
    rows = [f"| {quantity} | {teacher} | {student} |" for quantity, teacher, student in comparison(results)]
    time, kind, imported = duration(computing_seconds(results)), image_kind(results), imported_sentence(results)
    return "\n".join(
        [
            f"# {results['name']}",
            "",
            f"`{results['search']['architecture']}`",
            "",
            "| | teacher | student |",
            "|---|---|---|",
            *rows,
            "",
            f"{results['synthesis']['images']:,} {kind} images, {time} of computing. The whole report: "
            f"`{run.layout.report}`",
            *(["", imported] if imported else []),
        ]
    )
