"""The code blocks of the tutorials do what their pages say: every one is run, in order, in an empty folder."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from flows import cli
from nas_core import estimation
from nas_core.config import RunConfig

PROJECT = Path(__file__).parents[2]
BLOCK = re.compile(r"(<!-- not run: [^>]+ -->\n)?```(\w+)\n(.*?)```", re.DOTALL)
# A first run of modest size is minutes; the page is the same with one of seconds.
SECONDS = {
    "synthesis": {"rounds": 1, "shards": 2, "batch_size": 16},
    "search": {
        "space": {"name": "nasbench201", "channels": 2, "cells": 1},
        "strategy": {"name": "spos", "epochs": 1, "population": 2, "generations": 1, "parents": 1, "crossovers": 0,
                     "mutants": 0},
        "batch_size": 8,
        "max_macs": None,
    },
    "retrain": {"epochs": 1, "warmup_epochs": 0, "batch_size": 8},
}  # fmt: skip


@dataclass(frozen=True)
class Tutorial:
    """Runs the blocks of a page in the current folder."""

    dfnas: Any
    names: dict[str, Any]

    def run(self, page: str) -> None:
        found = [match.groups() for match in BLOCK.finditer((PROJECT / "docs" / page).read_text())]
        assert found
        for left_out, language, code in found:
            if left_out is None:
                getattr(self, language)(code)

    def console(self, code: str) -> None:
        for line in code.strip().splitlines():
            assert line.startswith("$ dfnas ")
            arguments = shlex.split(line.removeprefix("$ dfnas "))
            if arguments[0] == "run":
                result = self.dfnas(*arguments, cwd=Path.cwd())
                assert result.returncode == 0, result.stderr
                continue
            outcome = CliRunner().invoke(cli.app, arguments)
            assert outcome.exit_code == 0, (line, outcome.output, outcome.exception)
            if arguments[0] == "init":
                shrink(Path(arguments[arguments.index("--output") + 1]))

    def python(self, code: str) -> None:
        title = re.match(r"# (\w+\.py)\n", code)
        if title:
            Path(title[1]).write_text(code)
        else:
            exec(compile(code, "tutorial", "exec"), self.names)

    def yaml(self, code: str) -> None:
        RunConfig.model_validate(yaml.safe_load(code) | {"search": SECONDS["search"]})


def shrink(path: Path) -> None:
    """Make a config one of seconds."""
    config = yaml.safe_load(path.read_text())
    for section, values in SECONDS.items():
        config[section] |= values
    if config["synthesis"]["engine"]["name"] == "pixels":
        config["synthesis"]["engine"] |= {"stages": [{"iterations": 5}], "warmup": 1}
    path.write_text(yaml.safe_dump(config))


@pytest.fixture
def tutorial(dfnas, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tutorial:
    (tmp_path / "examples").symlink_to(PROJECT / "examples")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(estimation, "PATIENCE", 0.05)
    return Tutorial(dfnas, {})


def test_the_quick_start_works(tutorial: Tutorial, capsys: pytest.CaptureFixture[str]):
    tutorial.run("quick-start.md")
    assert capsys.readouterr().out.strip() in map(str, range(10))
    assert (Path("runs") / "first" / "figures" / "images.png").exists()


def test_your_own_checkpoint_works(tutorial: Tutorial):
    tutorial.run("own-checkpoint.md")
    assert "factory: my_models:build" in Path("mine.yaml").read_text()
