"""Settings of the documentation site (`make docs`), and the configuration reference made from the models."""

import importlib.metadata
import sys
import types
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from sphinx.application import Sphinx

from nas_core.config import RunConfig
from nas_core.settings.differentiable import DifferentiableSpec
from nas_core.settings.presets import OTHERS, TABLE, Preset
from nas_core.strategies import strategies

sys.path.insert(0, str(Path(__file__).parent))
from generated import api_pages, command_pages, pair_table, plain_docstring, space_table

project = "dfnas"
author = "the dfnas authors"
copyright = "the dfnas authors"
release = importlib.metadata.version("dfnas")
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
autodoc_typehints = "none"
autodoc_member_order = "bysource"
napoleon_use_rtype = False
napoleon_use_param = False
napoleon_use_ivar = True
html_theme = "furo"
exclude_patterns = ["_build", "_generated"]
myst_heading_anchors = 3
REFERENCE = Path(__file__).parent / "_generated" / "configuration.md"


def sections(model: type[BaseModel], key: str) -> Iterator[str]:
    """A table of a model's own fields, then those of the models inside it."""
    title = f"{key} (name: {model.model_fields['name'].default})" if _is_choice(model) else key or "the run"
    yield f"\n## {title}\n\n{' '.join((model.__doc__ or '').split())}\n"
    if issubclass(model, Preset):
        yield "The settings of its base with other defaults, see [Search strategies](strategies.md)."
        return
    yield "| key | type | default | |\n|---|---|---|---|"
    inner: list[tuple[type[BaseModel], str]] = []
    for name, field in model.model_fields.items():
        if name == "name" and _is_choice(model):
            continue
        models = list(_models(field.annotation))
        inner += [(nested, f"{key}.{name}".lstrip(".")) for nested in models]
        kind = "section" if models else _type_name(field.annotation)
        yield f"| `{name}` | {kind} | {_default(field)} | {field.description} |"
    for nested, nested_key in inner:
        yield from sections(nested, nested_key)


def _is_choice(model: type[BaseModel]) -> bool:
    """Whether the model is one of several, told apart by its name."""
    return "name" in model.model_fields and typing.get_origin(model.model_fields["name"].annotation) is typing.Literal


def _models(annotation: typing.Any) -> Iterator[type[BaseModel]]:
    """The models that a field may hold."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in typing.get_args(annotation):
        if not isinstance(part, FieldInfo):
            yield from _models(part)


def _type_name(annotation: typing.Any) -> str:
    """A type as someone who writes YAML would call it."""
    origin, parts = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _type_name(parts[0])
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_type_name(part) for part in parts)
    if origin is typing.Literal:
        return ", ".join(f"`{part}`" for part in parts)
    if origin is tuple:
        inner = [_type_name(part) for part in parts]
        return f"list of {inner[0]}" if parts[-1] is Ellipsis else f"[{', '.join(inner)}]"
    words = {str: "text", int: "integer", float: "number", bool: "true or false", Path: "path", type(None): "null"}
    return words.get(annotation, "mapping" if origin is dict else str(annotation))


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    return "" if isinstance(value, BaseModel) else f"`{_written(value)}`"


def strategy_tables() -> Iterator[str]:
    """Every preset of differentiable search with its choice of each part, then the other strategies."""
    parts = ["order", "perturbation", "partial", "progression", "regularisation", "stopping", "grid"]
    rest = "other settings than DARTS's"
    yield f"| name | {' | '.join(parts)} | {rest} |\n|{'---|' * (len(parts) + 2)}"
    for name, (_, settings) in TABLE.items():
        cells = [_written(settings[part]) if part in settings else "" for part in parts]
        others = {key: value for key, value in settings.items() if key not in parts}
        yield f"| `{name}` | {' | '.join(cells)} | {_written(others)} |"
    yield "\n| name | |\n|---|---|"
    for name, text in strategies.describe().items():
        settings = OTHERS[name][2] if name in OTHERS else {}
        if not issubclass(strategies.spec(name), DifferentiableSpec) or name == "differentiable":
            yield f"| `{name}` | {text}{' ' + _written(settings) if settings else ''} |"


def _written(value: typing.Any) -> str:
    """A setting as it is written in YAML on one line."""
    if isinstance(value, Mapping):
        return ", ".join(
            f"{key}: {{{_written(inner)}}}" if isinstance(inner, Mapping) else f"{key}: {_written(inner)}"
            for key, inner in value.items()
        )
    if isinstance(value, (list, tuple)):
        inner = (f"{{{_written(part)}}}" if isinstance(part, Mapping) else _written(part) for part in value)
        return f"[{', '.join(inner)}]"
    words = {None: "null", True: "true", False: "false", "": "''"}
    return words[value] if value is None or value == "" or isinstance(value, bool) else str(value)


def write_reference(_: Sphinx) -> None:
    """Write what the pages include from the code."""
    REFERENCE.parent.mkdir(exist_ok=True)
    REFERENCE.with_name("strategies.md").write_text("\n".join(strategy_tables()))
    REFERENCE.write_text("\n".join(sections(RunConfig, "")))
    REFERENCE.with_name("spaces.md").write_text("\n".join(space_table()))
    REFERENCE.with_name("commands.md").write_text(command_pages())
    REFERENCE.with_name("pairs.md").write_text("\n".join(pair_table()))
    REFERENCE.with_name("api.rst").write_text("\n".join(api_pages()))


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("builder-inited", write_reference)
    app.connect("autodoc-process-docstring", plain_docstring, priority=100)
