"""`dfnas run --run-dir s3://...` as users run it: shards in processes, a kill, a second run, verify and repair."""

import dataclasses
import os
import time
from pathlib import Path

import pytest
from object_stores import VARIABLES

from storage.files import exclusive, read_json
from storage.locations import location


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_run_in_a_bucket_is_killed_resumed_repaired_and_ends_with_the_same_digests(
    dfnas, finished_run: Path, tiny_config: Path, object_store: str
):
    store = {name: value for name, value in os.environ.items() if name.startswith(VARIABLES)}
    dfnas = dataclasses.replace(dfnas, environment=dfnas.environment | store)
    url = f"{object_store}/flow/run"
    command = ("run", tiny_config, "--run-dir", url, "--set", "execution={name: processes, workers: 2, threads: 1}")
    root = location(url)

    def begun() -> bool:
        time.sleep(0.2)  # A request each time; the run should have the processor.
        return any((root / "manifests").glob("synthesis-*.json"))

    dfnas.kill_when(begun, *command)
    with exclusive(root):
        result = dfnas(*command)
    assert result.returncode == 2
    assert f"another run is working in {url}" in result.stderr
    result = dfnas(*command)
    assert result.returncode == 0, result.stderr
    assert f"report: {url}/report.html" in result.stdout
    digests = read_json(root / "results.json")["digests"]
    assert digests == read_json(finished_run / "results.json")["digests"]

    (root / "dataset.zarr" / "soft_labels" / "c" / "2" / "0").unlink()
    assert dfnas("verify", url).returncode == 1
    result = dfnas("repair", url)
    assert result.returncode == 0, result.stderr
    assert dfnas("verify", url).returncode == 0
    assert read_json(root / "results.json")["digests"] == digests
    stages = [line.split()[:2] for line in dfnas("status", url).stdout.splitlines()]
    assert ["synthesis", "4/4"] in stages
