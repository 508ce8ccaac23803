"""The report of a run: one self-contained HTML page, made from records alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jinja2
from matplotlib.figure import Figure

from nas_core.evaluation.dataset_quality import off_diagonal_mass, top_pairs
from nas_core.reporting.figures import image_grid, numbers, record_curves, synthesis_curves, target_prediction
from nas_core.reporting.records import RunRecords
from nas_core.reporting.search_figures import (
    Edge,
    cell_edges,
    graph,
    operation_weights,
    score_by_generation,
    score_by_macs,
)
from nas_core.reporting.style import data_uri, operation_colours
from nas_core.reporting.summary import comparison, label_rows, quality_rows
from nas_core.reporting.wording import amount, duration, percent

MOST_CLASSES = 10  # columns of the image grid
MOST_TARGETS = 100  # rows of the heat map


@dataclass(frozen=True)
class Picture:
    """A figure on the page: its source, what it shows for those who cannot see it, and how to read it."""

    source: str
    alt: str
    caption: str
    wide: bool = False


@dataclass(frozen=True)
class Section:
    """A part of the page, with an anchor, pictures, and optionally rows of (name, value) below them."""

    anchor: str
    title: str
    pictures: Sequence[Picture] = ()
    rows: Sequence[tuple[str, str]] = ()


def render(records: RunRecords) -> str:
    """The whole report as one HTML document that loads nothing from anywhere.

    Args:
        records: What the stages recorded; parts without records are left out of the page.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("nas_core.reporting", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": percent, "amount": amount, "duration": duration}
    results = records.results
    sections = [_images(records), _quality(records), _search(records), _architecture(records), _training(records)]
    return environment.get_template("report.html.j2").render(
        results=results,
        comparison=comparison(results),
        sections=[section for section in sections if section.pictures or section.rows],
        timings=_timings(results["timings"]),
        provenance=_provenance(results),
        config_yaml=records.config_yaml,
    )


def _picture(figure: Figure, alt: str, caption: str, wide: bool = False) -> Picture:
    return Picture(data_uri(figure), alt, caption, wide)


def _images(records: RunRecords) -> Section:
    pictures = [_grid_picture(records), _prediction_picture(records)]
    if records.learning_history:
        pictures.append(
            _picture(
                record_curves(records.learning_history, "step"),
                "Loss terms while the generator learned",
                "The generator's learning, before the shards: the weighted total and its terms before weighting.",
            )
        )
    if len({record["step"] for record in records.synthesis_history}) > 1:
        pictures.append(
            _picture(
                synthesis_curves(records.synthesis_history),
                "Loss terms over the steps of synthesis",
                "The weighted total and its terms before weighting, on logarithmic axes: mean over the shards of a "
                "round, with a band from the lowest to the highest.",
            )
        )
    return Section("images", "Synthetic images", pictures)


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
    return Section("quality", "Quality of the images, by the teacher alone", rows=rows)


def _grid_picture(records: RunRecords) -> Picture:
    classes = len(records.class_names)
    shown = records.shown_classes[:MOST_CLASSES]
    part = "" if len(shown) == classes else f" Shown are {len(shown)} of {classes} classes."
    return _picture(
        image_grid(records.image_grid[:, : len(shown)], [records.class_names[index] for index in shown]),
        "Synthetic images, one column per class and one row per round",
        f"What the teacher remembers of each class, recovered from its weights alone.{part}",
        wide=True,
    )


def _prediction_picture(records: RunRecords) -> Picture:
    names, matrix = records.class_names, records.target_prediction
    present: list[int] = (~matrix.diagonal().isnan()).nonzero().flatten().tolist()
    shown = present[:MOST_TARGETS]
    part = "" if len(shown) == len(names) else f" Shown are {len(shown)} of {len(names)} classes."
    return _picture(
        target_prediction(matrix[shown][:, shown], [names[index] for index in shown]),
        "Heat map of the teacher's mean prediction per target class",
        "Does the teacher see what was asked for? On fresh windows of the images it gives the target class a mean "
        f"probability of {percent(float(matrix.diagonal().nanmean()))}.{part}",
    )


def _search(records: RunRecords) -> Section:
    pictures = []
    if records.search_candidates:
        chosen = records.architecture.notation
        rated = len({candidate["architecture"] for candidate in records.search_candidates})
        pictures += [
            _picture(
                score_by_generation(records.search_candidates),
                "Scores of the candidates by generation",
                f"{rated} different architectures were rated; higher is better.",
            ),
            _picture(
                score_by_macs(records.search_candidates, chosen),
                "Scores of the candidates against their multiply-accumulates",
                "What accuracy costs: each point is an architecture, the ringed one was chosen.",
            ),
        ]
    elif set(numbers(records.search_curve)) - {"epoch"}:
        pictures.append(
            _picture(record_curves(records.search_curve), "The search over the epochs", "The strategy's own figures.")
        )
    if any("gates" in record for record in records.search_curve):
        pictures.append(
            _picture(
                operation_weights(records.search_curve, records.slots),
                "Operation weights of each slot over the epochs",
                "How the weights of the operations part, slot by slot.",
                wide=len(records.slots) > 8,
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
            )
        )
    return Section("search", "Search", pictures)


def _architecture(records: RunRecords) -> Section:
    """The cells as graphs where the space has them, else what is chosen as rows."""
    cells = cell_edges(records.slots, records.architecture)
    if cells is None:
        rows = [
            (slot.name, chosen if isinstance(chosen, str) else ", ".join(chosen))
            for slot, chosen in zip(records.slots, records.architecture.operations, strict=True)
        ]
        return Section("architecture", "Architecture", rows=rows)
    colours = operation_colours([operation for slot in records.slots for operation in slot.operations])
    return Section("architecture", "Architecture", [_cell(kind, edges, colours) for kind, edges in cells.items()])


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
    )


def _training(records: RunRecords) -> Section:
    pictures = []
    if numbers(records.search_training):
        pictures.append(
            _picture(
                record_curves(records.search_training),
                "Training of the supernet over the epochs",
                "Training of the supernet that holds every architecture of the space.",
            )
        )
    if numbers(records.retrain_history):
        pictures.append(
            _picture(
                record_curves(records.retrain_history),
                "Retraining over the epochs",
                "Training of the found architecture from scratch on the synthetic images.",
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
    real = results["evaluation"]
    return [
        (
            "real images used",
            f"only for the final evaluation: {real['images']:,} ({real['source']})" if real["images"] else "none",
        ),
        ("synthetic images", f"{results['synthesis']['images']:,} in {results['synthesis']['rounds']} rounds"),
        ("seed", str(results["seed"])),
        ("device", results["device"]),
        ("teacher fingerprint", results["teacher"]["fingerprint"]),
        *((f"{part} digest", digest) for part, digest in results["digests"].items()),
        ("versions", ", ".join(f"{package} {version}" for package, version in results["versions"].items())),
    ]
