"""What pages are put together from: pictures with their files, sections, and the templates."""

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass

import jinja2
from matplotlib.figure import Figure

from nas_core.reporting.numbers import Row, as_csv, drawn_numbers
from nas_core.reporting.style import data_uri, drawn
from nas_core.reporting.wording import amount, duration, milliseconds, percent


@dataclass(frozen=True)
class Picture:
    """A figure with what belongs to it.

    Attributes:
        figure: The figure.
        alt: What it shows, for those who cannot see it.
        caption: How to read it.
        wide: Whether it takes the whole width of the page.
        name: Name of its files: lower case, digits and dashes.
        rows: Its numbers.
    """

    figure: Figure
    alt: str
    caption: str
    wide: bool
    name: str
    rows: Sequence[Row]

    @functools.cached_property
    def source(self) -> str:
        """The figure as an address that needs no file."""
        return data_uri(self.figure)

    def files(self) -> dict[str, bytes]:
        """Content by file name: the figure as SVG and PNG, its numbers as CSV."""
        forms = {f"{self.name}.{form}": drawn(self.figure, form) for form in ("svg", "png")}
        return forms | {f"{self.name}.csv": as_csv(self.rows).encode()}


@dataclass(frozen=True)
class Section:
    """A part of the page, with an anchor, pictures, and optionally rows of (name, value) below them."""

    anchor: str
    title: str
    pictures: Sequence[Picture] = ()
    rows: Sequence[tuple[str, str]] = ()


def make_picture(
    figure: Figure, alt: str, caption: str, wide: bool = False, *, name: str = "", rows: Sequence[Row] | None = None
) -> Picture:
    """A figure for a page.

    Args:
        figure: The figure.
        alt: What it shows, for those who cannot see it.
        caption: How to read it.
        wide: Whether it takes the whole width of the page.
        name: Name of its files; empty: made from `alt`.
        rows: Its numbers; None: those that its lines, points and bars show.
    """
    name = name or "-".join(re.findall(r"[a-z0-9]+", alt.lower())[:6])
    return Picture(figure, alt, caption, wide, name, drawn_numbers(figure) if rows is None else rows)


def figure_files(sections: Sequence[Section]) -> dict[str, bytes]:
    """Content by file name of all figures: as SVG, as PNG, and their numbers as CSV."""
    return {
        name: content
        for section in sections
        for picture in section.pictures
        for name, content in picture.files().items()
    }


def template(name: str) -> jinja2.Template:
    """A page's template, with the words for numbers."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("nas_core.reporting", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": percent, "amount": amount, "duration": duration, "milliseconds": milliseconds}
    return environment.get_template(name)
