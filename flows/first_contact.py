"""The commands before a first run: `dfnas init`, `dfnas estimate` and `dfnas doctor`."""

import shlex
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
import yaml
from pydantic import BaseModel

from nas_core.errors import InputError
from nas_core.reporting.wording import command

if TYPE_CHECKING:
    from nas_core.config import RunConfig

WIDTH = 96
RUNS = Path("runs")


def init(
    teacher: Annotated[
        str,
        typer.Option(
            metavar="SOURCE:NAME",
            help="torchvision:resnet18, timm:resnet18.a1_in1k, reference:resnet20, or my_package.models:build",
        ),
    ],
    weights: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="its weights", show_default="the pretrained ones of torchvision or timm"),
    ] = None,
    output: Annotated[Path, typer.Option(metavar="FILE", help="config to write; must not exist")] = Path("config.yaml"),
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="any setting, such as teacher.num_classes=10; repeatable"),
    ] = None,
) -> None:
    """Write a commented config that fits a teacher, and say what the run will take on this machine."""
    from flows.config_file import read_config, settings_alone, validated
    from tasks.building import preflight
    from tasks.first_contact import proposed_config

    if output.exists():
        raise InputError(f"{output} exists; choose another --output")
    said = settings_alone(settings or [])
    more = said.get("teacher", {})
    if not isinstance(more, dict):
        raise InputError("--set teacher=...: give the teacher as --teacher, and its fields as --set teacher.KEY=VALUE")
    proposal = proposed_config(teacher, weights, more, str(said.get("device", "auto")))
    config = validated(proposal.model_dump(mode="json", exclude_unset=True), settings or [], "the proposed config")
    preflight(config)
    heading = [
        shlex.join(["dfnas", "run", str(output)]),
        "",
        f"A first run of modest size for the teacher {teacher}, without any real image.",
        "Every number is meant to be changed: `dfnas estimate` says what that costs.",
    ]
    output.write_text(commented(config, heading))
    assert read_config(output) == config
    typer.echo(f"{output} is written and valid: {command('run', output)}")
    _say(config)


def estimate(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="YAML file that describes the run")],
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="override a setting; repeatable"),
    ] = None,
) -> None:
    """Say what a run will take on this machine in time, memory and disk, from ten seconds of measurement."""
    from flows.config_file import read_config

    _say(read_config(config, settings or []))


def doctor() -> None:
    """Check the installation, and say how to mend what is missing; exit code 1 if a run could not work."""
    from tasks.doctor import Verdict, examine

    findings = examine(RUNS)
    width = max(len(finding.subject) for finding in findings)
    for finding in findings:
        typer.echo(f"{finding.verdict:<7}  {finding.subject:<{width}}  {finding.found}")
        if finding.mend:
            typer.echo(f"{'':7}  {'':{width}}  -> {finding.mend}")
    if any(finding.verdict is Verdict.MISSING for finding in findings):
        raise typer.Exit(1)


def _say(config: "RunConfig") -> None:
    from tasks.first_contact import estimate_lines, estimate_run

    typer.echo("measuring on this machine, for about ten seconds ...", err=True)
    for line in estimate_lines(config, estimate_run(config), RUNS / config.name):
        typer.echo(line)


def commented(config: "RunConfig", heading: list[str]) -> str:
    """A config as YAML that reads back equal: what was set, each key under its description.

    Args:
        config: Its `model_fields_set`, and those of its sections, say what is written.
        heading: Lines of comment at the top.
    """
    lines = [f"# {line}".rstrip() for line in heading]
    for name in _in_order(config):
        value = getattr(config, name)
        lines += ["", *_entry(config, name, 0)] if isinstance(value, BaseModel) else _entry(config, name, 0)
    lines.insert(len(heading), "")
    return "\n".join(lines) + "\n"


def _entry(section: BaseModel, name: str, depth: int) -> list[str]:
    """A key with its comment, and what is below it."""
    indent, value = "  " * depth, getattr(section, name)
    description = type(section).model_fields[name].description or ""
    comment = textwrap.wrap(description, WIDTH - len(indent) - 2)
    lines = [f"{indent}# {line}" for line in comment]
    if isinstance(value, BaseModel):
        below = [line for inner in _in_order(value) for line in _entry(value, inner, depth + 1)]
        return [*lines, f"{indent}{name}:", *below] if below else lines
    plain = section.model_dump(mode="json", exclude_unset=True)[name]
    # In a list, because a bare value would end in a document marker.
    text = yaml.safe_dump([plain], default_flow_style=True, sort_keys=False, width=10**9, allow_unicode=True)
    return [*lines, f"{indent}{name}: {text.strip()[1:-1]}"]


def _in_order(section: BaseModel) -> list[str]:
    """The keys that were set, in the model's order, but first what says which thing it is."""
    names = [name for name in type(section).model_fields if name in section.model_fields_set]
    return sorted(names, key=lambda name: name not in ("name", "network", "factory"))
