"""The table and the plots of the benchmark against NAS-Bench-201."""

import math
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import matplotlib as mpl
import torch
from scipy.stats import kendalltau, spearmanr

from benchmarks.nasbench201_data import KINDS

mpl.use("agg")
from matplotlib import pyplot as plt


def rank_figures(scores: Sequence[float], accuracies: Sequence[float]) -> dict[str, float]:
    """How well scores rank the true accuracies."""
    order = sorted(range(len(scores)), key=lambda index: -accuracies[index])[: len(scores) // 10]
    leaders = sorted(range(len(scores)), key=lambda index: -scores[index])[:10]
    best_tenth = kendalltau([scores[i] for i in order], [accuracies[i] for i in order])
    return {
        "tau": float(kendalltau(scores, accuracies)[0]),  # type: ignore[arg-type]
        "rho": float(spearmanr(scores, accuracies)[0]),  # type: ignore[arg-type]
        "tau_best_tenth": float(best_tenth[0]),  # type: ignore[arg-type]
        "best_of_top_10": max(accuracies[i] for i in leaders),
    }


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown: a line per kind of data and method, mean and standard deviation over seeds."""
    columns = ("method", "data", "images", "found %", "regret", "tau", "rho", "tau of best tenth", "best of ten %", "s")
    lines = [f"| {' | '.join((*columns, 'seeds'))} |", "|---" * (len(columns) + 1) + "|"]
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for found in rows:
        groups.setdefault((found["method"], found["kind"]), []).append(found)
    for (method, kind), found in sorted(groups.items(), key=lambda item: (item[0][0], KINDS.index(item[0][1]))):
        cells = [
            method,
            kind,
            f"{found[0]['images']:,}",
            spread(found, "accuracy", 2),
            spread(found, "regret", 2),
            *(spread(found, name, 3) for name in ("tau", "rho", "tau_best_tenth")),
            spread(found, "best_of_top_10", 2),
            spread(found, "seconds", 0),
            str(len(found)),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def spread(rows: list[dict[str, Any]], name: str, digits: int) -> str:
    """Mean, and standard deviation of several."""
    values = [value for row in rows if (value := row.get(name)) is not None and math.isfinite(value)]
    if not values:
        return "-"
    text = f"{mean(values):.{digits}f}"
    missing = f" ({len(values)} of {len(rows)})" * (len(values) < len(rows))
    return (f"{text} ± {stdev(values):.{digits}f}" if len(values) > 1 and digits else text) + missing


def plot_rankings(rows: list[dict[str, Any]], path: Path) -> None:
    """True accuracy against the rank of the score, of every method and kind of data; seed 0."""
    shown = [found for found in rows if "scores" in found and found["seed"] == 0]
    methods, kinds = sorted({r["method"] for r in shown}), [k for k in KINDS if any(r["kind"] == k for r in shown)]
    if not shown:
        return
    figure, axes = plt.subplots(
        len(methods),
        len(kinds),
        figsize=(2.6 * len(kinds), 2.3 * len(methods)),
        squeeze=False,
        sharex=True,
        sharey=True,
    )
    for axis in axes.flat:
        axis.set_axis_off()
    for found in shown:
        axis = axes[methods.index(found["method"])][kinds.index(found["kind"])]
        axis.set_axis_on()
        order = torch.tensor(found["scores"]).argsort().argsort()
        axis.scatter(order.tolist(), found["accuracies"], s=4)
        axis.set_title(f"{found['method']}, {found['kind']}: tau {found['tau']:.2f}", fontsize=8)
        axis.set_ylim(50, 95)
    figure.supxlabel("rank by score", fontsize=9)
    figure.supylabel("true accuracy, %", fontsize=9)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def plot_courses(rows: list[dict[str, Any]], path: Path) -> None:
    """True accuracy of the architecture after each epoch or generation, over time; a panel per method, seed 0."""
    shown = [found for found in rows if len(found["curve_seconds"]) > 1 and found["seed"] == 0]
    methods = sorted({found["method"] for found in shown})
    if not shown:
        return
    across = min(3, len(methods))
    figure, axes = plt.subplots(
        -(-len(methods) // across), across, figsize=(2.9 * across, 2.4 * -(-len(methods) // across)), squeeze=False
    )
    for axis in axes.flat[len(methods) :]:
        axis.set_axis_off()
    for method, axis in zip(methods, axes.flat, strict=False):
        for found in shown:
            if found["method"] == method:
                colour = f"C{KINDS.index(found['kind'])}"
                axis.plot(found["curve_seconds"], found["curve"], ".-", label=found["kind"], color=colour)
        axis.set_title(method, fontsize=9)
        axis.set_xlim(left=0)
        axis.legend(fontsize=7)
    figure.supxlabel("seconds of search", fontsize=9)
    figure.supylabel("true accuracy, %", fontsize=9)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)
