"""Without any Prefect server, the command brings its own; it ends with the command, also by signals."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

PATIENCE_SECONDS = 200

# Each command starts a server with a database of its own.
pytestmark = pytest.mark.slow


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """A user who never heard of Prefect."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    return {**own, "PREFECT_HOME": str(tmp_path / "prefect")}


def synthesis(config: Path, run: Path) -> list[str]:
    return [sys.executable, "-m", "flows.cli", "run", str(config), "--run-dir", str(run), "--until", "synthesis"]


def started(command: list[str], environment: dict[str, str]) -> subprocess.Popen[str]:
    """In a process group of its own, as from a terminal."""
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def alive(group: int) -> list[str]:
    """Commands of a process group that run."""
    listed = subprocess.run(["ps", "-eo", "pgid=,stat=,args="], capture_output=True, text=True, check=True).stdout
    rows = [line.split(maxsplit=2) for line in listed.splitlines()]
    return [args for pgid, state, args in rows if pgid == str(group) and not state.startswith("Z")]


def wait_for_first_shard(process: subprocess.Popen[str], folder: Path) -> None:
    """The patient teacher stands still in its first step, so that nothing can be done before a signal arrives."""
    while not (folder / "waiting").exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)


def test_ctrl_c_ends_at_once_in_one_sentence_and_the_same_command_resumes(
    patient_config: Path, tmp_path: Path, environment: dict[str, str]
):
    """Even if Prefect's database is deleted in between: the run directory holds all."""
    run = tmp_path / "run"
    command = synthesis(patient_config, run)
    process = started(command, environment)
    wait_for_first_shard(process, tmp_path)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the command and to its server
    _, text = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 130
    assert "interrupted; the same command resumes" in text
    assert "Traceback" not in text
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)
    finished = {path: path.stat().st_mtime_ns for path in (run / "manifests").glob("*.json")}
    assert [path.name for path in finished] == ["noise.json"], "it went on after its step"
    shutil.rmtree(environment["PREFECT_HOME"])

    resumed = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False, timeout=PATIENCE_SECONDS
    )
    assert resumed.returncode == 0, resumed.stderr
    assert "synthesis done" in resumed.stdout
    assert "telemetry" not in resumed.stderr
    assert len(list((run / "manifests").glob("synthesis-*.json"))) == 4
    assert {path: path.stat().st_mtime_ns for path in finished} == finished


@pytest.mark.parametrize("execution", ["local", "{name: processes, workers: 1, threads: 1}"])
def test_sigterm_to_the_server_too_saves_the_work_and_does_not_wait_for_the_server(
    patient_config: Path, tmp_path: Path, environment: dict[str, str], execution: str
):
    """As `timeout`, batch systems and service managers send it: Prefect then has nobody to tell how the run ended."""
    run = tmp_path / "run"
    process = started([*synthesis(patient_config, run), "--set", f"execution={execution}"], environment)
    wait_for_first_shard(process, tmp_path)
    os.killpg(process.pid, signal.SIGTERM)
    _, text = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 143
    assert "terminated; the same command resumes" in text
    assert "Traceback" not in text
    assert alive(process.pid) == []
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["synthesis-round-000-shard-00000.pt"]


def test_sigkill_leaves_no_server_behind(patient_config: Path, tmp_path: Path, environment: dict[str, str]):
    """It cannot be caught, so something else must notice."""
    process = started(synthesis(patient_config, tmp_path / "run"), environment)
    wait_for_first_shard(process, tmp_path)
    assert len(alive(process.pid)) == 2
    process.kill()
    process.communicate()
    deadline = time.monotonic() + PATIENCE_SECONDS
    while still := alive(process.pid):
        assert time.monotonic() < deadline, still
        time.sleep(0.1)
