"""`prefect deploy`, a worker, and `prefect deployment run dfnas/full`, as documented."""

import json
import subprocess
import sys
from pathlib import Path

import yaml

PROJECT = Path(__file__).parents[2]


def prefect(environment: dict[str, str], *arguments: str) -> str:
    command = [sys.executable, "-m", "prefect", *arguments]
    result = subprocess.run(
        command, env=environment, cwd=PROJECT, capture_output=True, text=True, check=False, timeout=200
    )
    assert result.returncode == 0, (result.stdout + result.stderr)[-2000:]
    return result.stdout


def test_a_deployed_run_ends_with_the_same_digests_as_the_command(
    prefect_server, tiny_config: Path, finished_run: Path, tmp_path: Path
):
    environment = prefect_server.environment
    prefect(environment, "work-pool", "create", "dfnas", "--type", "process")
    prefect(environment, "--no-prompt", "deploy", "--all")
    listed = prefect(environment, "deployment", "ls")
    assert all(f"dfnas/{name}" in listed for name in ("full", "synthesis", "search", "retrain", "evaluate"))

    config = json.dumps(yaml.safe_load(tiny_config.read_text()))
    run = ["deployment", "run", "dfnas/full", "--param", f"run_dir={json.dumps(str(tmp_path / 'run'))}"]
    command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", "dfnas"]
    with (tmp_path / "worker.log").open("w") as log:
        worker = subprocess.Popen(command, env=environment, cwd=PROJECT, stdout=log, stderr=subprocess.STDOUT)
    try:
        prefect(environment, *run, "--param", f"config={config}", "--watch")
    finally:
        worker.terminate()
        worker.wait(timeout=30)
    results, reference = (json.loads((d / "results.json").read_text()) for d in (tmp_path / "run", finished_run))
    assert results["digests"] == reference["digests"]
