"""One look for all figures, and their way into a page.

Figures are light cards: dark ink on white, so that images and colours look the same in light and dark pages.
"""

import base64
import io
import math
import warnings
from collections.abc import Sequence
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator, PercentFormatter

INK, MUTED, GRID = "#1f2933", "#5f6c7b", "#e6eaef"
FAINT = "#a9b2bd"
SERIES = ("#2f6db3", "#dd7a2b", "#2a9d8f", "#b5446e", "#7a5ea8", "#8c6d31", "#3fa3c9", "#6b8e23")
BLUES = LinearSegmentedColormap.from_list("blues", ["#ffffff", "#a9cfe8", "#2f6db3", "#12355b"])
ORDERED = LinearSegmentedColormap.from_list("ordered", ["#9cc9e8", "#2f6db3", "#12243d"])

WIDTH = 4.6  # inches; a figure of this width stays readable on a phone

STYLE: dict[str, Any] = {
    "font.family": ["DejaVu Sans"],
    "font.size": 9.5,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelcolor": MUTED,
    "axes.edgecolor": FAINT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "text.color": INK,
    # Class names may hold dollar signs.
    "text.parse_math": False,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "legend.fontsize": 8.5,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "figure.facecolor": "white",
    # Text stays text, so that the reader's fonts draw scripts that matplotlib's font lacks.
    "svg.fonttype": "none",
    "svg.hashsalt": "dfnas",
}

# Decorates every function that makes a figure; also needed while saving.
styled = matplotlib.rc_context(STYLE)  # pyright: ignore[reportArgumentType]


def operation_colours(operations: Sequence[str]) -> dict[str, str]:
    """One colour per operation, the same wherever the order is the same; "none" is faint."""
    drawn = [operation for operation in dict.fromkeys(operations) if operation != "none"]
    return {"none": FAINT} | {operation: SERIES[i % len(SERIES)] for i, operation in enumerate(drawn)}


def panels(count: int, columns: int, width: float = WIDTH, height: float = 1.75) -> tuple[Figure, list[Axes]]:
    """A figure of `count` panels in rows of `columns`, each `height` inches high; unused places stay empty."""
    columns = min(columns, count)
    rows = -(-count // columns)
    figure = Figure(figsize=(width, rows * height + 0.35), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).ravel().tolist()
    for unused in grid[count:]:
        unused.set_axis_off()
    return figure, grid[:count]


def whole_steps(axes: Axes) -> None:
    """Label the horizontal axis at whole numbers only."""
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))


def percentages(axes: Axes) -> None:
    """Label the vertical axis in percent."""
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=None))


def logarithmic(axes: Axes, low: float, high: float) -> None:
    """A logarithmic vertical axis with plain numbers, at least one of them for any range [low, high] above 0."""
    axes.set_yscale("log")
    decades = math.log10(high / low)
    subs = (1.0,) if decades > 2 else (1.0, 2.0, 5.0) if decades > 0.9 else (1.0, 1.5, 2.0, 3.0, 5.0, 7.0)
    axes.yaxis.set_major_locator(LogLocator(subs=subs))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_locator(NullLocator())


@styled
def drawn(figure: Figure, form: str) -> bytes:
    """A figure as the content of an "svg" or "png" file; equal figures give equal bytes."""
    buffer = io.BytesIO()
    # What would differ between equal figures, or name the program.
    metadata = {"svg": {"Date": None, "Creator": None}, "png": {"Software": None}}[form]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(buffer, format=form, dpi=200, bbox_inches="tight", pad_inches=0.05, metadata=metadata)
    return buffer.getvalue()


def data_uri(figure: Figure) -> str:
    """A figure as an SVG image that a page can hold; no script in it can run."""
    return f"data:image/svg+xml;base64,{base64.b64encode(drawn(figure, 'svg')).decode()}"
