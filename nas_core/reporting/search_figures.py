"""Figures of the search: rated candidates, operation weights, and the found architecture as a graph."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch
from matplotlib.ticker import FuncFormatter, MaxNLocator

from nas_core.reporting.style import (
    FAINT,
    INK,
    MUTED,
    ORDERED,
    SERIES,
    WIDTH,
    operation_colours,
    panels,
    styled,
    whole_steps,
)
from nas_core.reporting.wording import amount
from nas_core.search_spaces.base import Architecture, Slot
from nas_core.strategies.candidates import pareto_front


@styled
def score_by_generation(candidates: Sequence[Mapping[str, Any]]) -> Figure:
    """Scores of all rated architectures over the generations: median with its quartiles, and the best so far."""
    figure, [axes] = panels(1, columns=1, height=2.9)
    generations = sorted({candidate["generation"] for candidate in candidates})
    best = [max(c["score"] for c in candidates if c["generation"] <= generation) for generation in generations]
    low, median, high = (
        [float(np.quantile([c["score"] for c in candidates if c["generation"] == g], share)) for g in generations]
        for share in (0.25, 0.5, 0.75)
    )
    axes.scatter(
        [c["generation"] for c in candidates],
        [c["score"] for c in candidates],
        s=22,
        color=SERIES[0],
        alpha=0.4,
        linewidth=0,
        label="candidate",
    )
    axes.step(generations, best, where="post", color=SERIES[1], label="best so far", zorder=3)
    axes.fill_between(generations, low, high, color=SERIES[0], alpha=0.15, linewidth=0, label="middle half")
    axes.plot(generations, median, color=SERIES[0], linewidth=1.2, label="median")
    axes.set(xlabel="generation", ylabel="score")
    whole_steps(axes)
    figure.legend(loc="outside upper left", ncols=2)
    return figure


@styled
def score_by_macs(candidates: Sequence[Mapping[str, Any]], chosen: str) -> Figure:
    """Score against multiply-accumulates of all rated architectures, with their front; the chosen one is ringed.

    Args:
        candidates: {"architecture", "macs", "score", "generation"}.
        chosen: Notation of the chosen architecture.
    """
    figure, [axes] = panels(1, columns=1, height=2.9)
    last = max(candidate["generation"] for candidate in candidates)
    early_first = sorted(candidates, key=lambda candidate: candidate["generation"])
    axes.scatter(
        [c["macs"] for c in early_first],
        [c["score"] for c in early_first],
        s=22,
        color=[ORDERED(c["generation"] / max(1, last)) for c in early_first],
        alpha=0.75,
        linewidth=0,
        label="candidate (darker: later)",
    )
    front = pareto_front([dict(candidate) for candidate in candidates])
    axes.plot(
        [c["macs"] for c in front],
        [c["score"] for c in front],
        color=SERIES[2],
        drawstyle="steps-post",
        linewidth=1.4,
        label="Pareto front",
    )
    # Several points of a grid may have found it, each with a score of its own.
    matching = [candidate for candidate in candidates if candidate["architecture"] == chosen]
    ringed = [max(matching, key=lambda candidate: candidate["score"])] if matching else []
    axes.scatter(
        [c["macs"] for c in ringed],
        [c["score"] for c in ringed],
        s=130,
        facecolor="none",
        edgecolor=SERIES[1],
        linewidth=2.2,
        label="chosen",
        zorder=3,
    )
    axes.set(xlabel="multiply-accumulates per image", ylabel="score")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: amount(value)))
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5))
    figure.legend(loc="outside upper left", ncols=2)
    return figure


@styled
def operation_weights(curve: Sequence[Mapping[str, Any]], slots: Sequence[Slot]) -> Figure:
    """Weight of every operation over the epochs, one panel per slot.

    Args:
        curve: Records with "epoch" and "gates": per slot one weight per operation, in the slot's order.
        slots: Names and operations of the panels.
    """
    records = [record for record in curve if "gates" in record]
    colours = operation_colours([operation for slot in slots for operation in slot.operations])
    columns = 2 if len(slots) <= 8 else 4
    figure, grid = panels(len(slots), columns, width=WIDTH if columns == 2 else 8.4, height=1.45)
    for index, (axes, slot) in enumerate(zip(grid, slots, strict=True)):
        for number, operation in enumerate(slot.operations):
            axes.plot(
                [record["epoch"] for record in records],
                [record["gates"][index][number] for record in records],
                color=colours[operation],
                linestyle=":" if operation == "none" else "-",
                label=operation,
            )
        axes.set_title(slot.name)
        axes.set_ylim(bottom=0)
        whole_steps(axes)
    entries = {label: handle for axes in grid for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(entries.values(), entries.keys(), loc="outside upper left", ncols=3)
    figure.supxlabel("epoch", fontsize=9.5, color=INK)
    return figure


@dataclass(frozen=True)
class Edge:
    """An arrow of a graph from node number `source` to node number `target`, with an operation on it."""

    source: int
    target: int
    operation: str


@styled
def graph(nodes: Sequence[str], edges: Sequence[Edge], colours: Mapping[str, str] | None = None) -> Figure:
    """A directed acyclic graph: nodes in a row, neighbours joined by straight arrows and others by arcs.

    Args:
        nodes: Names in topological order.
        edges: Arrows from lower to higher nodes; "none" is drawn faint and dotted.
        colours: Colour of each operation; None: the order of appearance decides.
    """
    colours = colours or operation_colours([edge.operation for edge in edges])
    reach = [_apex(edge) for edge in edges]
    top, bottom = max([0.2, *reach]) + 0.15, min([-0.2, *reach]) - 0.15
    width = max(WIDTH, 1.4 * (len(nodes) - 1) + 0.5)
    unit = width / (len(nodes) - 1 + 0.4)
    figure = Figure(figsize=(width, (top - bottom) * unit), layout="constrained")
    axes = figure.subplots()
    axes.set_axis_off()
    axes.set(xlim=(-0.2, len(nodes) - 0.8), ylim=(bottom, top), aspect="equal")
    for edge in edges:
        _draw_edge(axes, edge, colours[edge.operation])
    for position, name in enumerate(nodes):
        axes.add_patch(Circle((position, 0), 0.13, facecolor=INK, zorder=4))
        axes.text(position, 0, name, color="white", ha="center", va="center", weight="bold", zorder=5)
    return figure


@styled
def block_row(slots: Sequence[Slot], architecture: Architecture) -> Figure:
    """A network as a row of boxes, from image to logits, five to a line: each names its place and its operation.

    Args:
        slots: Places of the blocks, in order.
        architecture: One operation per slot; those that differ in width alone ("kind*factor") have one colour.
    """
    across = min(5, len(slots))
    down = -(-len(slots) // across)
    colours = operation_colours([_kind(operation) for slot in slots for operation in slot.operations])
    figure = Figure(figsize=(WIDTH * 1.6, 0.2 + 0.62 * down), layout="constrained")
    axes = figure.subplots()
    axes.set_axis_off()
    axes.set(xlim=(-0.05, across), ylim=(0.15 - down, 1.0))
    for number, (slot, operation) in enumerate(zip(slots, architecture.operations, strict=True)):
        chosen = operation if isinstance(operation, str) else ", ".join(operation)
        left, bottom = number % across, -(number // across)
        colour = colours.get(_kind(chosen), FAINT)
        box = FancyBboxPatch(
            (left, bottom + 0.2),
            0.88,
            0.72,
            boxstyle="round,pad=0,rounding_size=0.06",
            facecolor=colour,
            edgecolor=colour,
            alpha=0.16,
        )
        axes.add_patch(box)
        middle = left + 0.44
        axes.text(middle, bottom + 0.7, slot.name, ha="center", va="center", fontsize=7.5, color=MUTED)
        axes.text(middle, bottom + 0.42, chosen, ha="center", va="center", fontsize=8.5, weight="bold", color=colour)
    return figure


def _kind(operation: str) -> str:
    """An operation without its width."""
    return operation.partition("*")[0]


def _apex(edge: Edge) -> float:
    """Height of an edge's middle, where its label is, in distances of nodes: 0 for neighbours, else growing.

    Arcs from even nodes run above and those from odd nodes below, which keeps the labels of overlapping arcs apart.
    """
    span = edge.target - edge.source
    return 0.0 if span == 1 else 0.3 * span * (-1 if edge.source % 2 else 1)


def _draw_edge(axes: Axes, edge: Edge, colour: str) -> None:
    """An arrow with its operation written above a straight line, or on the middle of an arc."""
    idle = edge.operation == "none"
    apex, span = _apex(edge), edge.target - edge.source
    arrow = FancyArrowPatch(
        (edge.source, 0),
        (edge.target, 0),
        # An arc's middle lies half its `rad` away from the chord, in units of the chord, and upwards is negative.
        connectionstyle=f"arc3,rad={-2 * apex / span}",
        arrowstyle="-|>",
        mutation_scale=13,
        shrinkA=15,
        shrinkB=15,
        color=colour,
        linewidth=1.2 if idle else 2.2,
        linestyle=":" if idle else "-",
    )
    axes.add_patch(arrow)
    axes.text(
        (edge.source + edge.target) / 2,
        apex + (0.06 if span == 1 else 0),
        edge.operation,
        color=FAINT if idle else colour,
        fontsize=8.5,
        ha="center",
        va="bottom" if span == 1 else "center",
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.5} if span > 1 else None,
        zorder=3,
    )


def cell_edges(slots: Sequence[Slot], architecture: Architecture) -> dict[str, list[Edge]] | None:
    """The edges of each kind of cell, for slots named "target<-source" or "kind target<-source".

    Returns:
        Edges by kind ("" where there is one kind), those that are left out not among them; None for a space of
        another kind.
    """
    cells: dict[str, list[Edge]] = {}
    for slot, operation in zip(slots, architecture.operations, strict=True):
        match = re.fullmatch(r"(?:(\w+) )?(\d+)<-(\d+)", slot.name)
        if match is None:
            return None
        cell = cells.setdefault(match[1] or "", [])
        if isinstance(operation, str):
            cell.append(Edge(int(match[3]), int(match[2]), operation))
    return cells
