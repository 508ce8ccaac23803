"""Tables and pages of the documentation that are made from the code, so that they cannot disagree with it."""

import contextlib
import html
import importlib
import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from sphinx.application import Sphinx

from nas_core.errors import InputError
from nas_core.reporting.wording import amount
from nas_core.search_spaces import SearchSpace, spaces
from nas_core.strategies import macs_budget, strategies

PROJECT = Path(__file__).parents[1]
CLASSES = 10
SMALL, LARGE = (3, 32, 32), (3, 224, 224)

API = {
    "Configuration": ("nas_core.config", "nas_core.registry", "nas_core.proposal", "nas_core.estimation"),
    "Teachers": ("nas_core.teachers.teacher", "nas_core.teachers.weights"),
    "Synthesis": ("nas_core.synthesis.engine", "nas_core.synthesis.losses", "nas_core.synthesis.labels"),
    "Spaces and strategies": ("nas_core.search_spaces.base", "nas_core.strategies.base", "nas_core.ops.cost"),
    "Training and evaluation": (
        "nas_core.training.retraining",
        "nas_core.evaluation.accuracy",
        "nas_core.evaluation.dataset_quality",
    ),
    "Dataset and run directory": (
        "storage.dataset",
        "storage.loading",
        "storage.layout",
        "storage.manifests",
        "storage.locations",
    ),
    "Finished runs": ("tasks.run", "tasks.retrain", "tasks.report", "tasks.compare"),
}


def space_table() -> Iterator[str]:
    """Every space with its size and the cost of its networks."""
    yield "| name | | architectures | multiply-accumulates |\n|---|---|---|---|"
    for name, text in spaces.describe().items():
        space, images = _default_space(name)
        cheapest, dearest = space.macs_range()
        cost = f"{amount(cheapest)} to {amount(dearest)} ({images[1]}x{images[2]}, {CLASSES} classes)"
        yield f"| `{name}` | {text} | {_power(space.size)} | {cost} |"


def pair_table() -> Iterator[str]:
    """Which strategy takes which space, by asking it."""
    built = {name: _default_space(name)[0] for name in spaces.names()}
    yield f"| | {' | '.join(f'`{name}`' for name in built)} |\n|{'---|' * (len(built) + 1)}"
    for name in strategies.names():
        strategy = strategies.build(strategies.spec(name)())
        marks = []
        for space in built.values():
            mark = "-"
            with contextlib.suppress(InputError):
                strategy.check(space, macs_budget())
                mark = "yes"
            marks.append(mark)
        yield f"| `{name}` | {' | '.join(marks)} |"


def _default_space(name: str) -> tuple[SearchSpace, tuple[int, int, int]]:
    """A space with its defaults, for large images if it shrinks them by strides; and the images' shape."""
    spec = spaces.spec(name)
    images = LARGE if "strides" in spec.model_fields else SMALL
    return spaces.build(spec(), input_shape=images, num_classes=CLASSES), images


def _power(number: int) -> str:
    """A count; a large one as a power of ten."""
    return f"{number:,}" if number < 10**6 else f"about 10<sup>{len(str(number)) - 1}</sup>"


def command_pages() -> str:
    """Every command with its arguments and options, as Typer documents them."""
    command = [sys.executable, "-m", "typer", "flows.cli", "utils", "docs", "--name", "dfnas"]
    text = subprocess.run(command, check=True, capture_output=True, text=True, cwd=PROJECT).stdout
    return html.unescape(text).partition("\n")[2]


def api_pages() -> Iterator[str]:
    """One automodule directive per public module, under headings."""
    for heading, modules in API.items():
        yield f"{heading}\n{'-' * len(heading)}\n"
        for name in modules:
            summary = (inspect.getdoc(importlib.import_module(name)) or "").partition("\n")[0]
            yield f"``{name}``\n{'^' * (len(name) + 4)}\n\n{_quoted(summary)}\n"
            yield f".. automodule:: {name}\n   :members:\n   :no-index:\n   :exclude-members: model_config\n"


def plain_docstring(_app: Sphinx, what: str, _name: str, _object: object, _options: object, lines: list[str]) -> None:
    """Our docstrings are Markdown-like prose; what reStructuredText would take for markup is quoted, in place."""
    if what == "module":
        lines.clear()
    fenced = False
    for number, line in enumerate(lines):
        if line.strip().startswith("```"):
            fenced = not fenced
            lines[number] = "::" if fenced else ""
            lines[number] += "\n" if fenced else ""
        elif fenced:
            lines[number] = f"    {line}"
        else:
            lines[number] = _quoted(line)


def _quoted(line: str) -> str:
    """A line with code in double backticks and no other markup."""
    pieces = re.split(r"(``?[^`]+``?)", line)
    for index, piece in enumerate(pieces):
        if index % 2:
            pieces[index] = f"``{piece.strip('`')}``"
        else:
            pieces[index] = re.sub(r"([*|\\])", r"\\\1", re.sub(r"(\w)_(?=\W|$)", r"\1\\_", piece))
    return "".join(pieces)
