"""Several runs side by side: what came out, which settings differ, and how each got there."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure

from nas_core.config import flatten
from nas_core.reporting.imported import image_kind
from nas_core.reporting.numbers import Row
from nas_core.reporting.picture import Picture, Section, make_picture, template
from nas_core.reporting.style import INK, SERIES, WIDTH, panels, percentages, styled, whole_steps
from nas_core.reporting.summary import comparison, computing_seconds, machine, quality_rows
from nas_core.reporting.wording import amount, duration, percent

Table = Sequence[tuple[str, Sequence[str]]]


@dataclass(frozen=True)
class ComparedRun:
    """What the comparison needs of a finished run.

    Attributes:
        label: Its name on the page, different from those of the others.
        results: See `RunRecords.results`.
        config: Its config as nested plain values.
        search_candidates: See `RunRecords`.
        retrain_history: See `RunRecords`.
    """

    label: str
    results: Mapping[str, Any]
    config: Mapping[str, Any]
    search_candidates: Sequence[Mapping[str, Any]] = ()
    retrain_history: Sequence[Mapping[str, Any]] = ()


def render_comparison(runs: Sequence[ComparedRun], sections: Sequence[Section]) -> str:
    """One HTML document that loads nothing from anywhere.

    Args:
        runs: At least one; the page keeps their order.
        sections: Their `comparison_sections`.
    """
    measure, key = _measure(runs)
    best = max(runs, key=lambda run: run.results["student"][key])
    return template("compare.html.j2").render(
        labels=[run.label for run in runs],
        best=best.label,
        best_results=best.results,
        measure=measure,
        merit=percent(best.results["student"][key]),
        reservation=_reservation(runs),
        imported=[run.label for run in runs if image_kind(run.results) == "imported"],
        answer=_answer(runs),
        differing=differing_settings(runs),
        quality=_quality(runs),
        sections=sections,
    )


def comparison_sections(runs: Sequence[ComparedRun]) -> list[Section]:
    """The pictures: accuracy against cost, search curves overlaid, training overlaid."""
    name, key = _measure(runs)
    cost = make_picture(
        accuracy_by_macs(runs),
        f"{name} of each run against its multiply-accumulates",
        "Up and to the left is better.",
        name="accuracy-macs",
        rows=[
            {"run": run.label, "macs": run.results["student"]["macs"], name: run.results["student"][key]}
            for run in runs
        ],
    )
    curves = [picture for picture in (_search_picture(runs), _training_picture(runs)) if picture is not None]
    return [Section("cost", "What accuracy costs", [cost]), *([Section("curves", "Curves", curves)] if curves else [])]


def differing_settings(runs: Sequence[ComparedRun]) -> Table:
    """Rows of (dotted key, value in each run) for every setting in which two of them differ."""
    flat = [flatten(dict(run.config)) for run in runs]
    keys = [key for key in dict.fromkeys(key for values in flat for key in values) if key != "name"]
    rows = [(key, [_written(values.get(key, "-")) for values in flat]) for key in keys]
    return [(key, values) for key, values in rows if len(set(values)) > 1]


@styled
def accuracy_by_macs(runs: Sequence[ComparedRun]) -> Figure:
    """One labelled point per run: top-1 if all have one, else agreement, against multiply-accumulates."""
    name, key = _measure(runs)
    figure, [axes] = panels(1, columns=1, height=2.9)
    for number, run in enumerate(runs):
        student = run.results["student"]
        colour = SERIES[number % len(SERIES)]
        axes.scatter([student["macs"]], [student[key]], s=60, color=colour, label=run.label, zorder=3)
        axes.annotate(
            run.label, (student["macs"], student[key]), (5, 5), textcoords="offset points", fontsize=8, color=INK
        )
    axes.margins(0.2)
    axes.set(xlabel="multiply-accumulates per image", ylabel=name)
    axes.xaxis.set_major_formatter(lambda value, _: amount(value))
    percentages(axes)
    return figure


def _search_picture(runs: Sequence[ComparedRun]) -> Picture | None:
    """The best score so far over the rated architectures, of runs that rated some."""
    curves = {run.label: _best_so_far(run.search_candidates) for run in runs if run.search_candidates}
    if not curves:
        return None
    rows = [{"run": label, "rated": n, "best score": best} for label, curve in curves.items() for n, best in curve]
    return make_picture(
        _overlaid(curves, [run.label for run in runs], "rated architectures", "best score"),
        "Best score so far over the rated architectures of each run",
        "Scores are comparable where the runs judge by the same images and the same teacher; those put together by "
        "ranks compare the candidates of one run only.",
        name="search-curves",
        rows=rows,
    )


def _training_picture(runs: Sequence[ComparedRun]) -> Picture | None:
    curves = {
        run.label: [(record["epoch"], record["agreement"]) for record in run.retrain_history]
        for run in runs
        if run.retrain_history
    }
    if not curves:
        return None
    rows: list[Row] = [
        {"run": label, "epoch": epoch, "agreement": share} for label, curve in curves.items() for epoch, share in curve
    ]
    figure = _overlaid(curves, [run.label for run in runs], "epoch", "agreement with the teacher")
    percentages(figure.axes[0])
    return make_picture(
        figure,
        "Agreement with the teacher over the epochs of retraining of each run",
        "Retraining, on each run's own images.",
        name="retraining",
        rows=rows,
    )


@styled
def _overlaid(
    curves: Mapping[str, Sequence[tuple[int, float]]], labels: Sequence[str], horizontal: str, vertical: str
) -> Figure:
    """One line per run, in its colour."""
    figure, [axes] = panels(1, columns=1, width=WIDTH, height=2.9)
    for number, label in enumerate(labels):
        if curves.get(label):
            axes.plot(*zip(*curves[label], strict=True), color=SERIES[number % len(SERIES)], label=label)
    axes.set(xlabel=horizontal, ylabel=vertical)
    whole_steps(axes)
    figure.legend(loc="outside upper left", ncols=2)
    return figure


def _best_so_far(candidates: Sequence[Mapping[str, Any]]) -> list[tuple[int, float]]:
    scores = [candidate["score"] for candidate in candidates]
    return [(number, max(scores[:number])) for number in range(1, len(scores) + 1)]


def _measure(runs: Sequence[ComparedRun]) -> tuple[str, str]:
    """By what the runs are compared, in words and as a key: top-1 where all have one."""
    if all(run.results["student"]["top1"] is not None for run in runs):
        return "top-1 on real images", "top1"
    return "agreement with the teacher", "agreement"


def _judges(runs: Sequence[ComparedRun]) -> list[str]:
    """What the measure that decides was taken on in each run; equal where the runs were judged alike."""
    if _measure(runs)[1] == "top1":
        real = [run.results["evaluation"] for run in runs]
        return [f"{images['images']:,} real images ({images['source']})" for images in real]
    return [
        f"teacher {r['teacher']['fingerprint'][:12]} on held-out images of dataset {r['digests']['dataset'][:12]}, "
        f"seed {r['seed']}"
        for r in (run.results for run in runs)
    ]


def _reservation(runs: Sequence[ComparedRun]) -> str:
    """What keeps the runs from being compared strictly; empty if nothing does."""
    if len(set(_judges(runs))) == 1:
        return ""
    measure, key = _measure(runs)
    different = "different real images" if key == "top1" else "different images, or by different teachers"
    return f"The runs were judged on {different} (see 'judged by'), so their {measure} is not strictly comparable."


def _answer(runs: Sequence[ComparedRun]) -> Table:
    """Rows of (quantity, value in each run); a dash where a run has no such quantity."""
    students = [{quantity: student for quantity, _, student in comparison(run.results)} for run in runs]
    quantities = dict.fromkeys(quantity for student in students for quantity in student)
    results = [run.results for run in runs]
    measured = [machine(r) if r.get("latency") else "-" for r in results]
    return [
        *((quantity, [student.get(quantity, "-") for student in students]) for quantity in quantities),
        *([("latency measured on", measured)] if set(measured) != {"-"} else []),
        ("judged by", _judges(runs)),
        ("teacher's top-1", [percent(r["teacher"]["top1"]) for r in results]),
        ("teacher", [r["teacher"]["fingerprint"][:12] for r in results]),
        ("space", [r["search"]["space"] for r in results]),
        ("strategy", [r["search"]["strategy"] for r in results]),
        ("images", [f"{r['synthesis']['images']:,} {image_kind(r)}" for r in results]),
        ("computing time", [duration(computing_seconds(r)) for r in results]),
        ("device", [r["device"] for r in results]),
        ("architecture", [r["search"]["architecture"] for r in results]),
    ]


def _quality(runs: Sequence[ComparedRun]) -> Table:
    measured = [dict(quality_rows(run.results["quality"])) for run in runs]
    names = dict.fromkeys(name for rows in measured for name in rows)
    return [(name, [rows.get(name, "-") for rows in measured]) for name in names]


def _written(value: Any) -> str:
    return "none" if value is None else str(value)
