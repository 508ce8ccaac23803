"""The table of shards in Prefect: what is done, cached or failed, how long it took, how good it is."""

import time
from collections.abc import Mapping
from typing import Any

from storage.manifests import Manifest
from tasks.artifacts import show_table
from tasks.run import Run
from tasks.stage import piece_name

SECONDS_BETWEEN_TABLES = 10.0
MOST_ROWS = 500

Position = tuple[int, int]  # round, shard


class WaitingError(Exception):
    """A shard-round was not tried, as its round before failed."""

    def __str__(self) -> str:
        """Why it is missing."""
        return "waits for its round before"


class ShardTable:
    """The table of a run's shard-rounds, published every few seconds while they come in.

    Args:
        run: The run; made before anything is done in it, the table knows what was done before.
    """

    def __init__(self, run: Run) -> None:
        synthesis = run.config.synthesis
        self._run, self._total = run, synthesis.rounds * synthesis.shards
        self._rows: dict[Position, dict[str, Any]] = {}
        self._last = time.monotonic()
        self._done_before = {path.stem for path in run.layout.manifests()}

    def add(self, position: Position, outcome: Manifest | Exception) -> None:
        """Take in what became of a shard-round."""
        piece = piece_name("synthesis", {"round": position[0], "shard": position[1]})
        self._rows[position] = shard_row(position, outcome, piece in self._done_before)
        if time.monotonic() - self._last >= SECONDS_BETWEEN_TABLES:
            self.publish()

    def publish(self) -> None:
        """Show what is known."""
        self._last = time.monotonic()
        states = [row["state"] for row in self._rows.values()]
        text = ", ".join(f"{states.count(state)} {state}" for state in ("done", "cached", "failed"))
        show_table(
            self._run.artifact("shards"),
            list(map(dict, _ordered(self._rows))),
            f"Shards of {self._run.config.name}: {text}, of {self._total}. Loss and agreement of labels and targets by "
            "shard.",
        )


def shard_row(position: Position, outcome: Manifest | Exception, done_before: bool) -> dict[str, Any]:
    """A line of the table.

    Args:
        position: Round and shard.
        outcome: What it left, or why it left nothing.
        done_before: Whether it was in the run directory before the flow began.
    """
    row: dict[str, Any] = {"round": position[0], "shard": position[1]}
    if isinstance(outcome, Exception):
        return row | {"state": "waits for an earlier round" if isinstance(outcome, WaitingError) else "failed"}
    return row | {
        "state": "cached" if done_before else "done",
        "seconds": round(outcome.seconds, 1),
        "loss": outcome.figures["loss"],
        "agreement": f"{1 - outcome.figures['top1_drift']:.1%}",
    }


def _ordered(rows: Mapping[Position, Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """What failed comes first, then what is newest."""
    ordered = sorted(rows.items(), key=lambda item: (item[1]["state"] != "failed", -item[0][0], -item[0][1]))
    return [row for _, row in ordered[:MOST_ROWS]]
