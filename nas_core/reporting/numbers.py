"""The numbers behind a figure, as a table that a spreadsheet reads."""

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from torch import Tensor

Row = Mapping[str, Any]


def as_csv(rows: Iterable[Row]) -> str:
    """Rows of named values as CSV, with a header of all names in order of appearance; a missing value is empty."""
    rows = list(rows)
    names = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def drawn_numbers(figure: Figure) -> list[Row]:
    """What lines, points and bars of a figure show: {"panel", "series", "x", "y"}, axis by axis."""
    rows: list[Row] = []
    for number, axes in enumerate(figure.axes):
        panel = axes.get_title("left") or axes.get_title() or str(number)
        lines = [(line.get_label(), line.get_xydata()) for line in axes.get_lines()]
        scattered = [shape for shape in axes.collections if isinstance(shape, PathCollection)]
        series = [*lines, *((points.get_label(), points.get_offsets()) for points in scattered)]
        rows += [
            {"panel": panel, "series": _plain(label), "x": x, "y": y}
            for label, points in series
            for x, y in np.asarray(points, dtype=float).tolist()
        ]
        rows += [
            {"panel": panel, "series": _plain(bars.get_label()), "x": bar.get_x() + bar.get_width() / 2, "y": height}
            for bars in axes.containers
            for bar in bars
            if (height := bar.get_height()) is not None
        ]
    return rows


def _plain(label: object) -> str:
    """A series' name; matplotlib's own names for nameless ones begin with an underscore."""
    return "" if str(label).startswith("_") else str(label)


def matrix_rows(
    matrix: Float[Tensor, "rows columns"], names: Sequence[str], row: str, column: str, value: str
) -> list[Row]:
    """A square matrix as one row per entry that is a number, under the given names of the three columns."""
    return [
        {row: names[i], column: names[j], value: number}
        for i, numbers in enumerate(matrix.tolist())
        for j, number in enumerate(numbers)
        if not math.isnan(number)
    ]
