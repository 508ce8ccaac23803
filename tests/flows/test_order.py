"""What follows on what: the flow submits the pieces that the tests of the stages make one by one."""

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from flows import pipeline
from flows.config_file import read_config
from flows.pipeline import Goal, dfnas
from storage.manifests import Manifest
from tasks import grid, shards
from tasks.run import Checked, Run, check_config, open_run
from tasks.stage import Stage, piece_name
from tests.tasks.conftest import PROJECT, TINY, perform

EVERYTHING = (
    "synthesis.engine={name: generator, steps: 2, snapshots: 1, warmup: 1}",
    "search.strategy={name: r-darts-l2, order: first, epochs: 1, grid: [{}, {weight_decay: 1.0}]}",
    "search.latency_table=latency.json",
    "search.max_latency_ms=1.0",
    "finetune={data: {name: npz, path: more.npz}}",
    "baselines=[random, handmade]",
)
CHECKED = Checked(teacher="f", sources={}, canvas_bytes=1)
FIGURES = {"loss": 1.0, "top1_drift": 0.0}


class Future:
    """Something that is there already, in the place of a Prefect future."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def result(self) -> Any:
        return self.value


class Pieces:
    """Stands in for the work of all stages.

    Attributes:
        made: Names of the pieces in the order that they were asked for, each with those of what it is made from.
    """

    def __init__(self) -> None:
        self.made: dict[str, list[Any]] = {}

    def make(self, stage: Stage, upstream: Sequence[Any], position: dict[str, int]) -> Manifest:
        piece = piece_name(stage.name, position)
        self.made[piece] = [self._name(source) for source in upstream]
        return Manifest(piece=piece, key="", digest="", files={}, figures={**FIGURES, "of": piece}, seconds=0.0)

    def _name(self, source: Any) -> Any:
        if isinstance(source, list):
            return [self._name(part) for part in source]
        return (source.result() if isinstance(source, Future) else source).piece


def submitted(run: Run, until: Goal, monkeypatch: pytest.MonkeyPatch) -> tuple[dict[str, list[Any]], dict[str, Any]]:
    """What the flow asks for, and what it returns."""
    pieces = Pieces()

    def submit(stage: Stage, _run: Run, *upstream: Any, runner: object = None, **position: int) -> Future:
        del runner
        return Future(pieces.make(stage, upstream, position))

    monkeypatch.setattr(Stage, "submit", submit)
    monkeypatch.setattr(pipeline, "submit", lambda task, _: Future(CHECKED if task is check_config else None))
    for module in (grid, shards):
        monkeypatch.setattr(module, "placing", lambda *_: nullcontext())
    return pieces.made, dfnas.fn(run.config, run.directory, until)


def performed(run: Run, monkeypatch: pytest.MonkeyPatch) -> dict[str, list[Any]]:
    """What the tests of the stages ask for."""
    pieces = Pieces()

    def task(stage: Stage) -> SimpleNamespace:
        return SimpleNamespace(fn=lambda **given: pieces.make(stage, given["upstream"], given["position"]))

    # A property of the class comes before what each stage has under this name.
    monkeypatch.setattr(Stage, "task", property(task), raising=False)
    perform(run)
    return pieces.made


@pytest.mark.parametrize(
    ("until", "last"),
    [
        (Goal.SYNTHESIS, "dataset"),
        (Goal.SEARCH, "search"),
        (Goal.RETRAIN, "retrain"),
        (Goal.EVALUATE, "evaluate"),
        (Goal.REPORT, "report"),
    ],
)
def test_every_piece_is_made_from_the_right_others_and_none_is_made_beyond_the_goal(
    until: Goal, last: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    config = read_config(PROJECT / "configs" / "digits.yaml", (*TINY, *EVERYTHING))
    run = open_run(config, str(tmp_path / "run"), CHECKED)
    made, figures = submitted(run, until, monkeypatch)
    whole = performed(run, monkeypatch)
    assert {"learn", "costs", "grid-point-001", "finetune", "baseline-handmade"} <= whole.keys()
    pieces = list(whole)
    assert list(made) == pieces[: pieces.index(last) + 1]
    assert made == {piece: whole[piece] for piece in made}
    assert figures["of"] == last
