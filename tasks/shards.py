"""The table of shards in Prefect: what is done, cached or failed, how long it took, how good it is."""

import time
from collections.abc import Mapping
from typing import Any

from prefect.futures import PrefectFuture

from storage.manifests import Manifest
from tasks.artifacts import show_table
from tasks.run import Run
from tasks.stage import piece_name

SECONDS_BETWEEN_TABLES = 10.0
MOST_ROWS = 500

Position = tuple[int, int]  # round, shard
ShardFutures = Mapping[Position, PrefectFuture[Manifest]]


def done_shards(run: Run) -> set[Position]:
    """Round and shard of what the run directory holds already."""
    synthesis = run.config.synthesis
    return {
        (round_, shard)
        for round_ in range(synthesis.rounds)
        for shard in range(synthesis.shards)
        if run.layout.manifest(piece_name("synthesis", {"round": round_, "shard": shard})).exists()
    }


def follow_shards(run: Run, futures: ShardFutures, done_before: set[Position]) -> None:
    """Wait until every shard is done or has failed, and keep the table in Prefect up to date meanwhile.

    Args:
        run: The run.
        futures: Of each shard-round.
        done_before: Those that were in the run directory before the flow began.
    """
    rows: dict[Position, dict[str, Any]] = {}
    last = time.monotonic()
    # In the order of submission, which is about that in which they end.
    for position, future in futures.items():
        future.wait()
        rows[position] = shard_row(position, future.state.name, _manifest(future), position in done_before)
        if time.monotonic() - last >= SECONDS_BETWEEN_TABLES:
            _publish(run, rows, len(futures))
            last = time.monotonic()
    _publish(run, rows, len(futures))


def shard_row(position: Position, state: str | None, manifest: Manifest | None, done_before: bool) -> dict[str, Any]:
    """A line of the table.

    Args:
        position: Round and shard.
        state: Name of the final state of its task run in Prefect.
        manifest: What it left; None if it failed.
        done_before: Whether it was in the run directory before the flow began.
    """
    row: dict[str, Any] = {"round": position[0], "shard": position[1]}
    if manifest is None:
        return row | {"state": "failed" if state != "NotReady" else "waits for an earlier round"}
    drift = manifest.figures["top1_drift"]
    return row | {
        "state": "cached" if done_before or state == "Cached" else "done",
        "seconds": round(manifest.seconds, 1),
        "loss": manifest.figures["loss"],
        "agreement": f"{1 - drift:.1%}",
    }


def _manifest(future: PrefectFuture[Manifest]) -> Manifest | None:
    result = future.result(raise_on_failure=False)
    return result if isinstance(result, Manifest) else None


def _publish(run: Run, rows: Mapping[Position, Mapping[str, Any]], total: int) -> None:
    counts = {state: sum(row["state"] == state for row in rows.values()) for state in ("done", "cached", "failed")}
    # What failed comes first, then what is newest.
    ordered = sorted(rows.items(), key=lambda item: (item[1]["state"] != "failed", -item[0][0], -item[0][1]))
    text = ", ".join(f"{count} {state}" for state, count in counts.items())
    show_table(
        run.artifact("shards"),
        [row for _, row in ordered[:MOST_ROWS]],
        f"Shards of {run.config.name}: {text}, of {total}. Loss and agreement of labels and targets by shard.",
    )
