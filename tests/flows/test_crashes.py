"""Runs that are told to end, or die: nothing is lost, and Prefect does not show them as running for ever."""

import functools
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from storage.errors import InUseError
from storage.files import exclusive
from tasks.stopping import obey_parent

pytestmark = pytest.mark.slow

PROJECT = Path(__file__).parents[2]
PATIENCE_SECONDS = 120


def wait_until(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def flow_state(api: str, directory: Path) -> str:
    request = urllib.request.Request(f"{api}/flow_runs/filter", b"{}", {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as response:
        runs = json.load(response)
    return next(run["state_type"] for run in runs if run["parameters"].get("run_dir") == str(directory))


def dataset_digest(directory: Path) -> str:
    return json.loads((directory / "manifests" / "dataset.json").read_text())["digest"]


@pytest.mark.parametrize("execution", ["local", "{name: processes, workers: 1, threads: 1}"])
def test_sigterm_saves_the_work_in_progress_and_the_same_command_resumes(
    dfnas, prefect_server, patient_config: Path, finished_run: Path, tmp_path: Path, execution: str
):
    """In a run far shorter than the half minute between two checkpoints."""
    directory = tmp_path / "run"
    options = ("--run-dir", str(directory), "--until", "synthesis", "--set", f"execution={execution}")
    process = subprocess.Popen(
        [sys.executable, "-m", "flows.cli", "run", str(patient_config), *options],
        env=dfnas.environment, cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    wait_until((tmp_path / "waiting").exists)
    process.send_signal(signal.SIGTERM)
    _, text = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 143
    assert "terminated; the same command resumes" in text
    assert "Traceback" not in text
    assert flow_state(prefect_server.api, directory) == "CRASHED"
    assert [path.name for path in (directory / "checkpoints").iterdir()] == ["synthesis-round-000-shard-00000.pt"]

    if execution == "local":
        result = dfnas("run", patient_config, *options)
        assert result.returncode == 0, result.stderr
        assert dataset_digest(directory) == dataset_digest(finished_run)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_the_directory_stays_locked_until_the_work_in_progress_has_ended(
    dfnas, prefect_server, patient_config: Path, tmp_path: Path, number: int, code: int
):
    """Also where a step takes long: what still works there must not meet the next run."""
    directory = tmp_path / "run"
    options = ["--run-dir", str(directory), "--until", "synthesis", "--set", "teacher.arguments.lingers=true"]
    process = subprocess.Popen(
        [sys.executable, "-m", "flows.cli", "run", str(patient_config), *options],
        env=dfnas.environment, cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        # A shell that runs the tests in the background has them, and so their children, ignore it.
        preexec_fn=functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    try:
        wait_until((tmp_path / "waiting").exists)
        process.send_signal(number)
        wait_until((tmp_path / "told").exists)
        process.send_signal(number)  # Of somebody who is impatient.
        for _ in range(20):
            with pytest.raises(InUseError), exclusive(directory):
                pass
            time.sleep(0.05)
    finally:
        (tmp_path / "go").touch()
        _, text = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == code, text
    assert "the same command resumes" in text
    assert flow_state(prefect_server.api, directory) == "CRASHED"
    assert (directory / "checkpoints" / "synthesis-round-000-shard-00000.pt").exists()
    with exclusive(directory):
        pass


def test_a_run_goes_on_while_prefects_api_does_not_answer(
    dfnas, prefect_server, patient_config: Path, finished_run: Path, tmp_path: Path
):
    """The server stands still from before a shard is done until after; the next one waits for it to answer again."""
    directory = tmp_path / "run"
    command = [sys.executable, "-m", "flows.cli", "run", str(patient_config), "--run-dir", str(directory)]
    process = subprocess.Popen(
        [*command, "--until", "synthesis"], env=dfnas.environment, cwd=PROJECT, stdout=subprocess.DEVNULL
    )
    wait_until((tmp_path / "waiting").exists)
    os.killpg(prefect_server.process.pid, signal.SIGSTOP)
    try:
        (tmp_path / "go").touch()
        wait_until((directory / "manifests" / "synthesis-round-000-shard-00000.json").exists)
    finally:
        os.killpg(prefect_server.process.pid, signal.SIGCONT)
    assert process.wait(timeout=PATIENCE_SECONDS) == 0
    assert dataset_digest(directory) == dataset_digest(finished_run)
    assert flow_state(prefect_server.api, directory) == "COMPLETED"


@pytest.mark.usefixtures("short_silence")
def test_a_killed_run_becomes_crashed(dfnas, prefect_server, tiny_config: Path, tmp_path: Path):
    noise = tmp_path / "manifests" / "noise.json"
    dfnas.kill_when(noise.exists, "run", tiny_config, "--run-dir", tmp_path)
    wait_until(lambda: flow_state(prefect_server.api, tmp_path) == "CRASHED")


def _flow_with_a_worker(pids: Connection) -> None:
    worker = multiprocessing.get_context("spawn").Process(target=_worker, args=(pids,))
    worker.start()
    worker.join()


def _worker(pids: Connection) -> None:
    obey_parent()
    pids.send(os.getpid())
    time.sleep(100 * PATIENCE_SECONDS)  # Of itself it does not end while the test looks.


def test_no_worker_outlives_a_killed_flow():
    """It would write into a directory that the next run holds."""
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    flow = spawn.Process(target=_flow_with_a_worker, args=(theirs,))
    flow.start()
    worker = ours.recv()
    flow.kill()
    flow.join()
    try:
        wait_until(lambda: not is_alive(worker))
    finally:
        if is_alive(worker):
            os.kill(worker, signal.SIGKILL)


def is_alive(process: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{process}/stat").read_text().split()
    except (FileNotFoundError, ProcessLookupError):
        return False
