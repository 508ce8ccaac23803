"""Figures of synthesis and training: images, targets against predictions, loss curves."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter
from torch import Tensor

from nas_core.reporting.style import (
    BLUES,
    INK,
    ORDERED,
    SERIES,
    WIDTH,
    logarithmic,
    panels,
    percentages,
    styled,
    whole_steps,
)
from nas_core.reporting.wording import amount, shortened, spread

MOST_ROUNDS = 6  # rounds that a figure can tell apart
LOSS_TERMS = {
    "total": "total",
    "classification": "classification",
    "batch_norm": "BatchNorm distance",
    "total_variation": "total variation (L2)",
    "total_variation_l1": "total variation (L1)",
    "l2": "L2 norm",
}
# Records that are shares of images; "true_accuracy" is not among them, which is in the unit of its table.
SHARES = ("agreement", "validation_agreement", "accuracy")


@styled
def image_grid(
    images: UInt8[Tensor, "rounds classes images channels height width"], class_names: Sequence[str]
) -> Figure:
    """Synthetic images, one column per class and one row per round.

    Args:
        images: Bytes; three channels are shown in colour, any other number as the gray of their mean.
        class_names: One name per column.
    """
    rounds = spread(len(images), MOST_ROUNDS)
    sheet, column_centres, row_centres = _contact_sheet(images[rounds])
    width = 7.4
    figure = Figure(figsize=(width, 0.75 + width * 0.92 * sheet.shape[0] / sheet.shape[1]), layout="constrained")
    axes = figure.subplots()
    axes.imshow(sheet, cmap="gray", vmin=0, vmax=255)
    names = [shortened(name) for name in class_names]
    slanted = {"rotation": 35, "ha": "left", "rotation_mode": "anchor"} if sum(map(len, names)) > 55 else {}
    axes.set_xticks(column_centres, names, **slanted)
    axes.set_yticks(row_centres, [f"round {number}" for number in rounds])
    axes.tick_params(length=0, labelcolor=INK, labeltop=True, labelbottom=False)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    return figure


def _contact_sheet(
    images: UInt8[Tensor, "rounds classes images channels height width"],
) -> tuple[np.ndarray, list[float], list[float]]:
    """All images on one white sheet, with the centres of the columns and rows of cells in pixels.

    A cell holds the images of one class and round in a square; gaps between cells are wider than between images.
    """
    rounds, classes, count, channels, height, width = images.shape
    if channels != 3:
        images = images.float().mean(3, keepdim=True).to(torch.uint8)
    across = int(np.ceil(np.sqrt(count)))
    down = -(-count // across)
    thin, wide = max(1, width // 24), max(3, width // 5)
    cell_height, cell_width = down * (height + thin) - thin, across * (width + thin) - thin
    sheet = torch.full(
        (rounds * (cell_height + wide) - wide, classes * (cell_width + wide) - wide, images.shape[3]),
        255,
        dtype=torch.uint8,
    )
    for (row, column, number), image in zip(
        np.ndindex(rounds, classes, count), images.flatten(0, 2).movedim(1, -1), strict=True
    ):
        top = row * (cell_height + wide) + number // across * (height + thin)
        left = column * (cell_width + wide) + number % across * (width + thin)
        sheet[top : top + height, left : left + width] = image
    column_centres = [column * (cell_width + wide) + (cell_width - 1) / 2 for column in range(classes)]
    row_centres = [row * (cell_height + wide) + (cell_height - 1) / 2 for row in range(rounds)]
    return sheet.squeeze(2).numpy(), column_centres, row_centres


def target_prediction(matrix: Float[Tensor, "classes classes"], class_names: Sequence[str]) -> Figure:
    """Heat map of the teacher's mean prediction (columns) for each target class (rows).

    Args:
        matrix: Probabilities; up to 10 classes are written out, up to 25 are named.
        class_names: One name per row and column.
    """
    return _class_matrix(matrix, class_names, "class that the teacher sees", "class that was asked for")


def class_affinity_map(matrix: Float[Tensor, "classes classes"], class_names: Sequence[str]) -> Figure:
    """Heat map of the mean soft label (columns) of each target class (rows): which classes the labels join.

    Args:
        matrix: Probabilities; up to 10 classes are written out, up to 25 are named.
        class_names: One name per row and column.
    """
    return _class_matrix(matrix, class_names, "class in the soft label", "class that was asked for")


@styled
def layer_distances(distances: Mapping[str, float]) -> Figure:
    """A bar for each BatchNorm layer, from the teacher's first on the left to its last.

    Args:
        distances: Relative distance, >= 0, by the layer's name; up to 25 are named.
    """
    figure = Figure(figsize=(WIDTH, WIDTH * 0.55), layout="constrained")
    axes = figure.subplots()
    positions = range(1, len(distances) + 1)
    axes.bar(positions, list(distances.values()), width=0.7, color=SERIES[0])
    axes.set(xlabel="BatchNorm layer of the teacher", ylabel="relative distance")
    axes.grid(visible=False, axis="x")
    if len(distances) <= 25:
        names = [shortened(name, 18) for name in distances]
        axes.set_xticks(positions, names, rotation=45, ha="right", rotation_mode="anchor")
        axes.set_xlabel("")
    return figure


@styled
def _class_matrix(
    matrix: Float[Tensor, "classes classes"], class_names: Sequence[str], columns: str, rows: str
) -> Figure:
    values = matrix.cpu().numpy()
    figure = Figure(figsize=(WIDTH, WIDTH * 0.88), layout="constrained")
    axes = figure.subplots()
    picture = axes.imshow(values, cmap=BLUES, vmin=0, vmax=1)
    figure.colorbar(picture, ax=axes, shrink=0.8, label="probability").outline.set_visible(False)  # pyright: ignore[reportCallIssue]
    axes.set(xlabel=columns, ylabel=rows)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    if len(values) <= 25:
        names = [shortened(name, 12) for name in class_names]
        axes.set_xticks(range(len(names)), names, rotation=45, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(len(names)), names)
        axes.tick_params(length=0)
    if len(values) <= 10:
        for (row, column), value in np.ndenumerate(values):
            colour = "white" if value > 0.5 else INK
            axes.text(
                column, row, f"{value:.2f}".removeprefix("0"), ha="center", va="center", fontsize=7.5, color=colour
            )
    return figure


@styled
def synthesis_curves(history: Sequence[Mapping[str, Any]]) -> Figure:
    """Loss terms over the optimisation steps: per round the mean over shards, with a band from lowest to highest.

    Args:
        history: {"round", "shard", "step", term: value}; a term that is nowhere above 0 gets no panel.
    """
    rounds = sorted({record["round"] for record in history})
    shown = [rounds[i] for i in spread(len(rounds), MOST_ROUNDS)]
    terms = [term for term in LOSS_TERMS if any(record.get(term, 0) > 0 for record in history)]
    figure, grid = panels(len(terms), columns=2)
    for axes, term in zip(grid, terms, strict=True):
        values = [record[term] for record in history if record.get(term, 0) > 0]
        logarithmic(axes, min(values), max(values))
        axes.set_title(LOSS_TERMS[term])
        whole_steps(axes)
        for position, number in enumerate(shown):
            steps, low, mean, high = _over_shards(history, number, term)
            colour = ORDERED(position / max(1, len(shown) - 1))
            axes.fill_between(steps, low, high, color=colour, alpha=0.18, linewidth=0)
            axes.plot(steps, mean, color=colour, label=f"round {number}")
    figure.supxlabel("step", fontsize=9.5, color=INK)
    if terms:
        figure.legend(*grid[0].get_legend_handles_labels(), loc="outside upper left", ncols=3)
    return figure


def _over_shards(
    history: Sequence[Mapping[str, Any]], number: int, term: str
) -> tuple[list[int], list[float], list[float], list[float]]:
    """Steps of a round, with the lowest, mean and highest value of a loss term over its shards."""
    by_step: dict[int, list[float]] = defaultdict(list)
    for record in history:
        if record["round"] == number and record.get(term, 0) > 0:
            by_step[record["step"]].append(record[term])
    steps = sorted(by_step)
    low, mean, high = ([f(by_step[step]) for step in steps] for f in (min, lambda v: sum(v) / len(v), max))
    return steps, low, mean, high


@styled
def record_curves(records: Sequence[Mapping[str, Any]], position: str = "epoch") -> Figure:
    """One panel per number in the records, against the epoch; shares of images are in percent.

    Args:
        records: Numbers by name; what is not a number is left out.
        position: The name of the horizontal axis.
    """
    names = [name for name in numbers(records) if name != position]
    figure, grid = panels(len(names), columns=2)
    for axes, name in zip(grid, names, strict=True):
        points = [
            (record.get(position, i), record[name]) for i, record in enumerate(records) if is_number(record.get(name))
        ]
        axes.plot(*zip(*points, strict=True), color=SERIES[0], marker="." if len(points) < 30 else "")
        axes.set_title(LOSS_TERMS.get(name, name.replace("_", " ")))
        whole_steps(axes)
        if name in SHARES:
            percentages(axes)
        elif name == "macs":
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: amount(value)))
    figure.supxlabel(position, fontsize=9.5, color=INK)
    return figure


def numbers(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """Names that stand for a number in at least one record, in order of appearance."""
    return list(dict.fromkeys(name for record in records for name, value in record.items() if is_number(value)))


def is_number(value: object) -> bool:
    """Whether a value can be drawn on an axis."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def only(records: Sequence[Mapping[str, Any]], names: Sequence[str]) -> list[dict[str, Any]]:
    """The records that have one of the named numbers, with these and the epoch alone."""
    kept = [{name: record[name] for name in ("epoch", *names) if name in record} for record in records]
    return [record for record in kept if set(numbers([record])) - {"epoch"}]


def without(records: Sequence[Mapping[str, Any]], names: Sequence[str]) -> list[dict[str, Any]]:
    """The records that have other numbers than the named ones and the epoch, without those named."""
    kept = [{name: value for name, value in record.items() if name not in names} for record in records]
    return [record for record in kept if set(numbers([record])) - {"epoch"}]
