"""Config files and `--set`: reading them, and saying in one sentence each what is wrong."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import yaml
from pydantic import ValidationError

from nas_core.config import RunConfig
from nas_core.errors import InputError


class _Loader(yaml.SafeLoader):
    """YAML without dates, and with whole numbers in decimals alone: a run's name may be "2026-11-23" or "007"."""

    yaml_implicit_resolvers: ClassVar = {
        first: [
            (tag, re.compile(r"[-+]?(0|[1-9][0-9_]*)$") if tag.endswith(":int") else pattern)
            for tag, pattern in resolvers
            if not tag.endswith(":timestamp")
        ]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


def read_config(path: Path, settings: Sequence[str] = ()) -> RunConfig:
    """Read a YAML config and apply settings to it.

    Args:
        path: The file.
        settings: "dotted.key=value" each, the value in YAML, such as "search.strategy.epochs=5".

    Raises:
        InputError: If the file cannot be read, a setting cannot be parsed, or the config is not valid.
    """
    try:
        values = _parsed(path.read_text())
    except OSError as error:
        raise InputError(f"cannot read the config {path}: {error.strerror}") from error
    except (yaml.YAMLError, ValueError) as error:
        raise InputError(f"the config {path} is no valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise InputError(f"the config {path} must be a mapping of sections, such as configs/digits.yaml")
    return validated(values, settings, str(path))


def validated(values: dict[str, Any], settings: Sequence[str], source: str) -> RunConfig:
    """The config of plain values with settings applied to them, in place.

    Args:
        values: Sections.
        settings: See `read_config`.
        source: Where the values are from, for messages.

    Raises:
        InputError: If a setting cannot be parsed, or the config is not valid.
    """
    for setting in settings:
        _apply(values, setting)
    try:
        return RunConfig.model_validate(values)
    except ValidationError as error:
        raise InputError("\n".join(f"{source}: {_sentence(detail, values)}" for detail in error.errors())) from error


def settings_alone(settings: Sequence[str]) -> dict[str, Any]:
    """The sections that settings make by themselves.

    Raises:
        InputError: If one cannot be parsed.
    """
    values: dict[str, Any] = {}
    for setting in settings:
        _apply(values, setting)
    return values


def _parsed(text: str) -> Any:
    """The value that a YAML text stands for.

    Raises:
        YAMLError: If it is no YAML.
        ValueError: If it is marked as something that it is not, such as "!!int x".
    """
    return yaml.load(text, Loader=_Loader)


def _apply(values: dict[str, Any], setting: str) -> None:
    """Set one dotted key, in place."""
    key, equals, text = setting.partition("=")
    if not equals or not key:
        raise InputError(f"--set {setting} is not of the form key=value, such as search.strategy.epochs=5")
    *sections, last = key.split(".")
    section = values
    for name in sections:
        section = section.setdefault(name, {})
        if not isinstance(section, dict):
            raise InputError(f"--set {setting}: '{name}' is a single value, it has no '{last}'")
    try:
        section[last] = _parsed(text)
    except (yaml.YAMLError, ValueError) as error:
        raise InputError(f"--set {setting}: '{text}' is no valid YAML value") from error


def _sentence(detail: Any, values: dict[str, Any]) -> str:
    """One of pydantic's errors for people: the dotted key, what is wrong, and what was given."""
    where = ".".join(_keys(detail["loc"], values)) or "the config"
    kind, context = detail["type"], detail.get("ctx", {})
    if kind == "extra_forbidden":
        return f"{where} is no setting; check its spelling and its section"
    if kind == "missing":
        return f"{where} is missing"
    if kind == "union_tag_not_found":
        return f"{where} needs a name"
    if kind == "union_tag_invalid":
        return f"{where}.name is '{context['tag']}'; known: {context['expected_tags']}"
    if kind == "value_error":
        return f"{where}: {context['error']}"
    return f"{where} is {detail['input']!r}: {detail['msg'][0].lower()}{detail['msg'][1:]}"


def _keys(location: tuple[Any, ...], values: Any) -> list[str]:
    """The keys of a location as the user wrote them, without the names by which pydantic tells specs apart."""
    keys = []
    for part in location:
        if isinstance(values, dict) and part not in values and values.get("name") == part:
            continue
        keys.append(str(part))
        inside = isinstance(values, dict) and part in values
        values = values[part] if inside or (isinstance(values, list) and part in range(len(values))) else None
    return keys
