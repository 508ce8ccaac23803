"""The table and the plots of the benchmark against NAS-Bench-201."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import matplotlib as mpl
import torch
from scipy.stats import kendalltau, spearmanr

from benchmarks.nasbench201_data import KINDS
from benchmarks.nasbench201_intervals import best_tenth
from nas_core.ops.mixed import indices_of
from nas_core.search_spaces.base import Choices

mpl.use("agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

BEST = 94.37  # of the whole space
SHORTEST = 3.0  # seconds of a search whose course is drawn


def rank_figures(scores: Sequence[float], accuracies: Sequence[float]) -> dict[str, float]:
    """How well scores rank the true accuracies."""
    order = best_tenth(accuracies)
    leaders = sorted(range(len(scores)), key=lambda index: -scores[index])[:10]
    among_best = kendalltau([scores[i] for i in order], [accuracies[i] for i in order])
    return {
        "tau": float(kendalltau(scores, accuracies)[0]),  # type: ignore[arg-type]
        "rho": float(spearmanr(scores, accuracies)[0]),  # type: ignore[arg-type]
        "tau_best_tenth": float(among_best[0]),  # type: ignore[arg-type]
        "best_of_top_10": max(accuracies[i] for i in leaders),
    }


def alpha_scores(gates: Sequence[Sequence[float]], paths: Sequence[Choices]) -> list[float]:
    """The logarithm of the product of what architecture weights give to each operation of a path.

    A search without a budget returns the connected architecture of which it is largest. Weights of whole edges would
    add the same to all, since every edge of this space has an operation.

    Args:
        gates: Per slot the weights of its operations, which sum to one.
        paths: Per slot the index of an operation.
    """
    logarithms = [[math.log(weight) if weight > 0 else -math.inf for weight in weights] for weights in gates]
    return [
        sum(of_slot[index] for of_slot, choice in zip(logarithms, path, strict=True) for index in indices_of(choice))
        for path in paths
    ]


def together(rows: list[dict[str, Any]]) -> str:
    """All rows as one JSON text: the true accuracies that rankings are compared with once, then a line per row."""
    accuracies = next((found["accuracies"] for found in rows if "accuracies" in found), [])
    assert all(found.get("accuracies", accuracies) == accuracies for found in rows), "rows are judged by one table"
    lines = [json.dumps({name: found[name] for name in found if name != "accuracies"}) for found in rows]
    return '{"accuracies": ' + json.dumps(accuracies) + ',\n"rows": [\n' + ",\n".join(lines) + "\n]}\n"


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown: a line per kind of data and method, mean and standard deviation over seeds."""
    head = ("method", "data", "images", "found %", "regret", "tau", "tau of alpha", "rho", "tau of best tenth")
    columns = (*head, "best of ten %", "s", "seeds")
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for found in rows:
        groups.setdefault((found["method"], found["kind"]), []).append(found)
    for (method, kind), found in sorted(groups.items(), key=lambda item: (item[0][0], KINDS.index(item[0][1]))):
        cells = [
            method,
            kind,
            f"{found[0]['images']:,}",
            spread(found, "accuracy", 2),
            spread([{"regret": BEST - row["accuracy"]} for row in found], "regret", 2),
            *(spread(found, name, 3) for name in ("tau", "tau_of_alpha", "rho", "tau_best_tenth")),
            spread(found, "best_of_top_10", 2),
            spread(found, "seconds", 0),
            str(len(found)),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def spread(rows: list[dict[str, Any]], name: str, digits: int) -> str:
    """Mean, and sample standard deviation of several."""
    values = [value for row in rows if (value := row.get(name)) is not None and math.isfinite(value)]
    if not values:
        return "-"
    text = f"{mean(values):.{digits}f}"
    missing = f" ({len(values)} of {len(rows)})" * (len(values) < len(rows))
    return (f"{text} ± {stdev(values):.{digits}f}" if len(values) > 1 and digits else text) + missing


def plot_rankings(rows: list[dict[str, Any]], path: Path) -> None:
    """True accuracy against the rank of the score, a panel per method and kind of data; seed 0."""
    shown = sorted((found for found in rows if "scores" in found and found["seed"] == 0), key=_order)
    if not shown:
        return
    figure, axes = _panels(len(shown), one_x=True)
    for found, axis in zip(shown, axes, strict=False):
        order = torch.tensor(found["scores"]).argsort().argsort()
        axis.scatter(order.tolist(), _errors(found["accuracies"]), s=4, color=_colour(found))
        _scale(axis, worst=60)
        axis.set_title(f"{found['method']}, {_data(found)}: tau {found['tau']:.2f}", fontsize=8)
    _save(figure, path, "rank by score, the best on the right", "true accuracy, %")


def plot_courses(rows: list[dict[str, Any]], path: Path) -> None:
    """True accuracy of what is best by score after each epoch or generation; a panel per method, a line per seed.

    Left out is what takes no time: counting.
    """
    timed = (found for found in rows if len(found["curve_seconds"]) > 1 and found["curve_seconds"][-1] >= SHORTEST)
    shown = sorted(timed, key=_order)
    methods = list(dict.fromkeys(found["method"] for found in shown))
    if not shown:
        return
    worst = max(error for found in shown for error in _errors(found["curve"]))
    figure, axes = _panels(len(methods))
    for method, axis in zip(methods, axes, strict=False):
        lines = {}
        for found in (found for found in shown if found["method"] == method):
            line = axis.plot(found["curve_seconds"], _errors(found["curve"]), ".-", lw=1, ms=4, color=_colour(found))
            lines[_data(found)] = line[0]
        axis.axhline(100 - BEST, color="0.7", lw=0.8, zorder=0)
        _scale(axis, worst=1.1 * worst)
        # From zero: a supernet's training is a part of the search.
        axis.set_xlim(0, 1.05 * axis.dataLim.x1)
        axis.set_title(method, fontsize=8)
        axis.legend(lines.values(), lines, fontsize=7, loc="best")
    _save(figure, path, "seconds of search", "true accuracy, %")


def _errors(accuracies: Sequence[float]) -> list[float]:
    return [100 - accuracy for accuracy in accuracies]


def _scale(axis: Axes, worst: float) -> None:
    """The logarithm of the error, which spreads out the good ones that differ least, labelled with accuracies."""
    axis.set_yscale("log")
    axis.set_yticks([90, 40, 20, 10, 6], ["10", "60", "80", "90", "94"])
    axis.minorticks_off()
    axis.set_ylim(worst, 5)


def _order(found: dict[str, Any]) -> tuple[str, int, int]:
    return found["method"], KINDS.index(found["kind"]), found["seed"]


def _data(found: dict[str, Any]) -> str:
    return found["kind"] if found["images"] else "no images"


def _colour(found: dict[str, Any]) -> str:
    return f"C{KINDS.index(found['kind'])}" if found["images"] else "0.4"


def _panels(count: int, one_x: bool = False) -> tuple[Figure, list[Axes]]:
    """So many panels in rows of four, with one scale of accuracy, and one of what is across if that is the same."""
    across = min(4, count)
    down = -(-count // across)
    figure, axes = plt.subplots(
        down,
        across,
        figsize=(2.6 * across, 2.2 * down),
        squeeze=False,
        sharex=one_x,
        sharey=True,
        layout="constrained",
    )
    for axis in axes.flat[count:]:
        axis.set_axis_off()
    return figure, list(axes.flat)


def _save(figure: Figure, path: Path, across: str, up: str) -> None:
    figure.supxlabel(across, fontsize=9)
    figure.supylabel(up, fontsize=9)
    figure.savefig(path, dpi=120)
    plt.close(figure)
