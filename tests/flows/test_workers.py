"""Two Prefect workers on one work pool, of which one dies with its machine: the other one completes the run."""

import json
import os
import signal
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

PATIENCE_SECONDS = 300


def wait_until(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def state(api: str, flow_run: str) -> str:
    with urllib.request.urlopen(f"{api}/flow_runs/{flow_run}") as response:
        return json.load(response)["state_type"]


def family(process: int) -> Iterator[int]:
    """A process and its descendants."""
    yield process
    for child in Path(f"/proc/{process}/task/{process}/children").read_text().split():
        yield from family(int(child))


def at_work(worker: int) -> bool:
    """Whether a worker has started a run."""
    return any("flow-run execute" in text or "prefect.engine" in text for text in map(command_line, family(worker)))


def command_line(process: int) -> str:
    return Path(f"/proc/{process}/cmdline").read_bytes().replace(b"\0", b" ").decode()


def digests(directory: Path) -> dict[str, str]:
    pieces = [*(directory / "manifests").glob("synthesis-*.json"), directory / "manifests" / "dataset.json"]
    return {path.stem: json.loads(path.read_text())["digest"] for path in pieces}


def test_the_other_worker_completes_the_run_of_a_killed_one(
    worker, schedule, prefect, prefect_server, short_silence, tiny_config: Path, finished_run: Path, tmp_path: Path
):
    """Worker and run are killed together, as a machine dies; the server notices, and Retry goes on elsewhere."""
    directory, logs = tmp_path / "run", [tmp_path / "first.log", tmp_path / "second.log"]
    with worker(logs[0]) as first, worker(logs[1]) as second:
        flow_run = schedule("synthesis", tiny_config, directory)
        wait_until((directory / "manifests" / "synthesis-round-000-shard-00000.json").exists)
        busy, other = (0, 1) if at_work(first.pid) else (1, 0)
        for process in list(family((first, second)[busy].pid)):
            os.kill(process, signal.SIGKILL)
        made = {path: path.stat().st_mtime_ns for path in (directory / "manifests").iterdir()}
        assert not (directory / "manifests" / "dataset.json").exists()

        wait_until(lambda: state(prefect_server.api, flow_run) == "CRASHED")
        short_silence.delete()
        prefect("flow-run", "retry", flow_run)
        wait_until(lambda: state(prefect_server.api, flow_run) == "COMPLETED")

    assert flow_run in logs[other].read_text()
    assert digests(directory) == digests(finished_run)
    assert {path: path.stat().st_mtime_ns for path in made} == made
    assert not list(directory.rglob("*.partial"))
