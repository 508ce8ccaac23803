"""Shards side by side: the same digests whatever the engine, and a failed one fails alone."""

import importlib.util
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.orchestration import peak_memory

PROJECT = Path(__file__).parents[2]

ENGINES = {
    "processes": "{name: processes, workers: 2, threads: 1}",
    "dask": "{name: dask, workers: 2, threads: 1, most_tasks: 2}",
    "ray": "{name: ray, workers: 2, threads: 1}",
}


def digests(directory: Path) -> dict[str, str]:
    pieces = [*(directory / "manifests").glob("synthesis-*.json"), directory / "manifests" / "dataset.json"]
    return {path.stem: json.loads(path.read_text())["digest"] for path in pieces}


LARGEST_FLOW = 500e6


@pytest.mark.slow
@pytest.mark.timeout(900)  # A cluster, on what may be a busy machine.
@pytest.mark.parametrize("engine", list(ENGINES))
def test_every_engine_gives_the_same_digests(dfnas, tiny_config: Path, finished_run: Path, tmp_path: Path, engine: str):
    """Also where shards share tasks (Dask's, here)."""
    if engine != "processes" and importlib.util.find_spec(f"prefect_{engine}") is None:
        pytest.skip(f"pip install 'dfnas[{engine}]'")
    execution = f"execution={ENGINES[engine]}"
    result = dfnas("run", tiny_config, "--run-dir", tmp_path, "--until", "synthesis", "--set", execution)
    assert result.returncode == 0, result.stderr
    assert digests(tmp_path) == digests(finished_run)
    assert "INFO" not in result.stderr
    if engine == "processes":
        assert "synthesis-round-001-shard-00001 done" in (tmp_path / "dfnas.log").read_text()


@pytest.mark.slow
def test_a_flow_that_only_conducts_stays_small(dfnas, tiny_config: Path, finished_run: Path, tmp_path: Path):
    """All of the work is done in other processes, to the last stage."""
    command = [sys.executable, "-m", "flows.cli", "run", tiny_config, "--run-dir", tmp_path]
    execution = ["--set", "execution={name: processes, workers: 1, threads: 1}"]
    flow = subprocess.Popen([*command, *execution], env=dfnas.environment, cwd=PROJECT, stdout=subprocess.DEVNULL)
    peak = 0
    while flow.poll() is None:
        peak = max(peak, peak_memory(flow.pid))
        time.sleep(0.1)
    assert flow.returncode == 0
    assert 0 < peak < LARGEST_FLOW
    ours, theirs = (json.loads((run / "results.json").read_text())["digests"] for run in (tmp_path, finished_run))
    assert ours == theirs


@pytest.mark.slow
def test_a_failed_shard_fails_alone_and_one_command_completes_it(dfnas, finished_run: Path, tmp_path: Path):
    """A directory where shard 0's object belongs: shard 1 is made all the same."""
    run = shutil.copytree(finished_run, tmp_path / "run")
    expected = digests(run)
    for path in (run / "manifests").glob("synthesis-*.json"):
        path.unlink()
    in_the_way = run / "dataset.zarr" / "losses" / "c" / "0"
    in_the_way.unlink()
    in_the_way.mkdir()

    result = dfnas("repair", run)
    assert result.returncode == 1
    assert "2 of 4 shard-rounds are missing, the others are done" in result.stderr
    assert "synthesis-round-000-shard-00000: IsADirectoryError" in result.stderr
    assert "synthesis-round-001-shard-00000: waits for its round before" in result.stderr
    assert f"`dfnas repair {run}` makes exactly these" in result.stderr
    assert "Traceback" not in result.stderr
    made = {path.stem for path in (run / "manifests").glob("synthesis-*.json")}
    assert made == {"synthesis-round-000-shard-00001", "synthesis-round-001-shard-00001"}

    in_the_way.rmdir()
    result = dfnas("repair", run)
    assert result.returncode == 0, result.stderr
    assert digests(run) == expected
