"""The report of a run: one self-contained HTML page, made from records alone."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from nas_core.evaluation.dataset_quality import off_diagonal_mass, top_pairs
from nas_core.reporting.baselines import baseline_table, verdict
from nas_core.reporting.figures import (
    class_affinity_map,
    image_grid,
    layer_distances,
    numbers,
    only,
    record_curves,
    synthesis_curves,
    target_prediction,
    without,
)
from nas_core.reporting.finetuned import finetuned_rows
from nas_core.reporting.imported import image_kind, imported_sentence
from nas_core.reporting.numbers import matrix_rows
from nas_core.reporting.picture import Picture, Section, template
from nas_core.reporting.picture import make_picture as _picture
from nas_core.reporting.records import RunRecords
from nas_core.reporting.search_figures import (
    Edge,
    block_row,
    cell_edges,
    graph,
    operation_weights,
    score_by_generation,
    score_by_macs,
)
from nas_core.reporting.style import operation_colours
from nas_core.reporting.summary import (
    comparison,
    computing_seconds,
    label_rows,
    machine,
    quality_rows,
    retraining,
)
from nas_core.reporting.wording import duration, percent

MOST_CLASSES = 10  # columns of the image grid
MOST_TARGETS = 100  # rows of the heat map
HESSIAN = ("largest_eigenvalue", "trace")


def report_sections(records: RunRecords) -> list[Section]:
    """The parts of the page between the answer and the timings; those without records are left out."""
    sections = [_images(records), _quality(records), _search(records), _architecture(records), _training(records)]
    return [section for section in sections if section.pictures or section.rows]


def render(records: RunRecords, sections: Sequence[Section] | None = None) -> str:
    """The whole report as one HTML document that loads nothing from anywhere.

    Args:
        records: What the stages recorded.
        sections: Its `report_sections`, where they were made already.
    """
    results = records.results
    return template("report.html.j2").render(
        results=results,
        comparison=comparison(results),
        times_cheaper=times_cheaper(results),
        baselines=baseline_table(results),
        verdict=verdict(results),
        finetuned=finetuned_rows(results),
        imported=imported_sentence(results),
        kind=image_kind(results),
        effort=computing_seconds(results),
        sections=report_sections(records) if sections is None else sections,
        timings=_timings(results["timings"]),
        provenance=_provenance(results),
        config_yaml=records.config_yaml,
    )


def times_cheaper(results: Mapping[str, Any]) -> float | None:
    """How many times more multiply-accumulates the teacher takes than the student; None if they were not counted."""
    macs = results["teacher"].get("macs")
    return None if not macs else macs / results["student"]["macs"]


def _images(records: RunRecords) -> Section:
    pictures = [_grid_picture(records), _prediction_picture(records)]
    if records.learning_history:
        # The relative distance is the curve of the absolute one on another axis.
        shown = [
            {name: step[name] for name in step if name != "relative_batch_norm"} for step in records.learning_history
        ]
        pictures.append(
            _picture(
                record_curves(shown, "step"),
                "Loss terms while the generator learned",
                "The generator's learning, before the shards: the weighted total and its terms before weighting.",
                name="generator-learning",
                rows=records.learning_history,
            )
        )
    if len({record["step"] for record in records.synthesis_history}) > 1:
        pictures.append(
            _picture(
                synthesis_curves(records.synthesis_history),
                "Loss terms over the steps of synthesis",
                "The weighted total and its terms before weighting, on logarithmic axes: mean over the shards of a "
                "round, with a band from the lowest to the highest.",
                name="synthesis-losses",
                rows=records.synthesis_history,
            )
        )
    return Section("images", f"{image_kind(records.results).capitalize()} images", pictures)


def _quality(records: RunRecords) -> Section:
    """What the teacher alone says of the images and of their labels."""
    affinity = records.class_affinity
    joins = [f"{one} → {other} ({percent(share)})" for one, other, share in top_pairs(affinity, records.class_names)]
    rows = [
        *quality_rows(records.results["quality"]),
        *label_rows(records.results["synthesis"]["labels"]),
        ("label mass outside of the class asked for", percent(off_diagonal_mass(affinity))),
        ("classes that the labels join", ", ".join(joins)),
    ]
    pictures = [_affinity_picture(records)]
    if records.batch_norm_distances:
        pictures.append(
            _picture(
                layer_distances(records.batch_norm_distances),
                "Relative distance of the images' statistics to the teacher's, by BatchNorm layer",
                "Where do the images differ from what the teacher learned from? The distance of their means and "
                "variances to those that each BatchNorm layer remembers, as a share of the size of these.",
                name="batch-norm-distances",
                rows=[{"layer": name, "distance": value} for name, value in records.batch_norm_distances.items()],
            )
        )
    return Section("quality", "Quality of the images, by the teacher alone", pictures, rows)


def _grid_picture(records: RunRecords) -> Picture:
    classes = len(records.class_names)
    shown = records.shown_classes[:MOST_CLASSES]
    part = "" if len(shown) == classes else f" Shown are {len(shown)} of {classes} classes."
    kind = image_kind(records.results)
    meaning = {
        "synthetic": "What the teacher remembers of each class, recovered from its weights alone.",
        "imported": "The first images of each class, as they were imported.",
    }
    return _picture(
        image_grid(records.image_grid[:, : len(shown)], [records.class_names[index] for index in shown]),
        f"{kind.capitalize()} images, one column per class and one row per round",
        f"{meaning[kind]}{part}",
        wide=True,
        name="images",
        rows=[
            {"round": number, "class": name, "images": count}
            for number, counts in enumerate(records.image_counts.tolist())
            for name, count in zip(records.class_names, counts, strict=True)
        ],
    )


def _prediction_picture(records: RunRecords) -> Picture:
    matrix, names, part = _shown_classes(records, records.target_prediction)
    return _picture(
        target_prediction(matrix, names),
        "Heat map of the teacher's mean prediction per target class",
        "Does the teacher see what was asked for? On fresh windows of the images it gives the target class a mean "
        f"probability of {percent(float(records.target_prediction.diagonal().nanmean()))}.{part}",
        name="teacher-sees",
        rows=matrix_rows(matrix, names, "asked for", "seen", "probability"),
    )


def _affinity_picture(records: RunRecords) -> Picture:
    matrix, names, part = _shown_classes(records, records.class_affinity)
    return _picture(
        class_affinity_map(matrix, names),
        "Heat map of the mean soft label per target class",
        "Which classes do the labels join? Off the diagonal lies what the soft labels of the last round say beyond the "
        f"class asked for: {percent(off_diagonal_mass(records.class_affinity))} of their mass.{part}",
        name="label-affinity",
        rows=matrix_rows(matrix, names, "asked for", "in the label", "probability"),
    )


def _shown_classes(records: RunRecords, matrix: Tensor) -> tuple[Tensor, list[str], str]:
    """Rows and columns of classes with images, as many as can be read; their names; what is left out, in words."""
    names = records.class_names
    present: list[int] = (~matrix.diagonal().isnan()).nonzero().flatten().tolist()
    shown = present[:MOST_TARGETS]
    part = "" if len(shown) == len(names) else f" Shown are {len(shown)} of {len(names)} classes."
    return matrix[shown][:, shown], [names[index] for index in shown], part


def _search(records: RunRecords) -> Section:
    pictures = []
    if records.search_candidates:
        chosen = records.architecture.notation
        rated = len({candidate["architecture"] for candidate in records.search_candidates})
        pictures += [
            _picture(
                score_by_generation(records.search_candidates),
                "Scores of the candidates by generation",
                f"{rated} different architectures were rated; higher is better. The band holds the middle half of a "
                "generation.",
                name="search-generations",
                rows=records.search_candidates,
            ),
            _picture(
                score_by_macs(records.search_candidates, chosen),
                "Scores of the candidates against their multiply-accumulates",
                "What accuracy costs: each point is an architecture, the ringed one was chosen; nothing cheaper is as "
                "good as what is on the front.",
                name="search-pareto",
                rows=records.search_candidates,
            ),
        ]
    elif curve := without(records.search_curve, HESSIAN):
        pictures.append(
            _picture(
                record_curves(curve), "The search over the epochs", "The strategy's own figures.", name="search-curve"
            )
        )
    if hessian := only(records.search_curve, HESSIAN):
        pictures.append(
            _picture(
                record_curves(hessian),
                "The Hessian of the validation loss over the epochs",
                "How sharp the validation loss is in the architecture weights. When the largest eigenvalue grows fast, "
                "what is cut out of the supernet loses much of its accuracy (R-DARTS).",
                name="hessian",
            )
        )
    if any("gates" in record for record in records.search_curve):
        pictures.append(
            _picture(
                operation_weights(records.search_curve, records.slots),
                "Operation weights of each slot over the epochs",
                "How the weights of the operations part, slot by slot.",
                wide=len(records.slots) > 8,
                name="operation-weights",
            )
        )
    if records.anytime:
        position = "epoch" if "epoch" in records.anytime[0] else "generation"
        pictures.append(
            _picture(
                record_curves(records.anytime, position),
                f"True accuracy by {position} of the architecture that the search would have returned",
                "Anytime evaluation: what the search would have returned, looked up in the benchmark's table. The "
                "search did not see it.",
                name="true-accuracy",
            )
        )
    return Section("search", "Search", pictures)


def _architecture(records: RunRecords) -> Section:
    """The cells as graphs where the space has them, a row of blocks as boxes, anything else as rows."""
    slots, chosen = records.slots, records.architecture.operations
    cells = cell_edges(slots, records.architecture)
    if cells is not None:
        colours = operation_colours([operation for slot in slots for operation in slot.operations])
        return Section("architecture", "Architecture", [_cell(kind, edges, colours) for kind, edges in cells.items()])
    named = [
        (slot.name, operation if isinstance(operation, str) else ", ".join(operation))
        for slot, operation in zip(slots, chosen, strict=True)
    ]
    if not all(isinstance(operation, str) for operation in chosen):
        return Section("architecture", "Architecture", rows=named)
    blocks = _picture(
        block_row(slots, records.architecture),
        "The network as a row of blocks: " + ", ".join(f"{name} {operation}" for name, operation in named),
        "The choices from image to logits, line by line; what lies between them is the space's own.",
        wide=True,
        name="blocks",
        rows=[{"place": name, "operation": operation} for name, operation in named],
    )
    return Section("architecture", "Architecture", [blocks])


def _cell(kind: str, edges: Sequence[Edge], colours: Mapping[str, str]) -> Picture:
    nodes = [str(number) for number in range(1 + max(edge.target for edge in edges))]
    described = ", ".join(f"{edge.source} to {edge.target} {edge.operation}" for edge in edges)
    meaning = (
        f"The {kind} cell: nodes 0 and 1 are the outputs of the two cells before; all others make up its output"
        if kind
        else f"The cell: node 0 is its input and node {nodes[-1]} its output"
    )
    return _picture(
        graph(nodes, edges, colours),
        f"The {kind} cell as a graph: {described}" if kind else f"The cell as a graph: {described}",
        f"{meaning}; a node sums what arrives.",
        wide=len(nodes) > 4,
        name=f"cell-{kind}" if kind else "cell",
        rows=[{"from": edge.source, "to": edge.target, "operation": edge.operation} for edge in edges],
    )


def _training(records: RunRecords) -> Section:
    pictures = []
    if numbers(records.search_training):
        pictures.append(
            _picture(
                record_curves(records.search_training),
                "Training in the search over the epochs",
                "Of the supernet that holds every architecture of the space or, where the strategy has none, of the "
                "architectures that it trains alone, one after the other.",
                name="search-training",
                rows=records.search_training,
            )
        )
    if numbers(records.retrain_history):
        pictures.append(
            _picture(
                record_curves(records.retrain_history),
                "Retraining over the epochs",
                f"Training of the found architecture from scratch on the {image_kind(records.results)} images.",
                name="retraining",
                rows=records.retrain_history,
            )
        )
    return Section("training", "Training", pictures)


def _timings(timings: Mapping[str, float]) -> list[tuple[str, str, float]]:
    """Rows of (stage, time, share of the total), the total left out."""
    total = timings["total"]
    return [
        (stage, duration(seconds), seconds / total if total else 0.0)
        for stage, seconds in timings.items()
        if stage != "total"
    ]


def _provenance(results: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Rows of (name, value) that say what made this result."""
    synthesis = results["synthesis"]
    return [
        ("real images used", _real_images(results)),
        (f"{image_kind(results)} images", f"{synthesis['images']:,} in {synthesis['rounds']} rounds"),
        ("retraining", retraining(results)),
        ("seed", str(results["seed"])),
        ("device", results["device"]),
        *([("latency measured on", machine(results))] if results["latency"] else []),
        ("teacher fingerprint", results["teacher"]["fingerprint"]),
        *((f"{part} digest", digest) for part, digest in results["digests"].items()),
        ("versions", ", ".join(f"{package} {version}" for package, version in results["versions"].items())),
    ]


def _real_images(results: Mapping[str, Any]) -> str:
    real, tuned = results["evaluation"], results["finetuned"]
    uses = []
    if real["images"]:
        uses.append(f"only for the final evaluation: {real['images']:,} ({real['source']})")
    if tuned is not None:
        learned = tuned["trained_on"]
        uses.append(f"for the fine-tuned network beside the student: {learned['images']:,} ({learned['source']})")
    if results["synthesis"].get("imported"):
        uses.append("unknown for search and training, whose images were imported")
    return "; ".join(uses) or "none"
