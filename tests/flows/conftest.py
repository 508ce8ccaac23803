"""A real Prefect server for the session, and the `dfnas` command as users run it."""

import functools
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect.automations import Automation
from prefect.settings import PREFECT_API_URL, temporary_settings
from servers import serving

from flows.crashes import watch_for_crashes
from storage.errors import InUseError
from storage.files import exclusive

PROJECT = Path(__file__).parents[2]


@dataclass(frozen=True)
class PrefectServer:
    """A running server: its API, the environment of commands that use it, and its process."""

    api: str
    environment: dict[str, str]
    process: subprocess.Popen[bytes]

    def ask(self, path: str, question: dict[str, Any]) -> Any:
        """What the API answers to a posted question."""
        request = urllib.request.Request(
            f"{self.api}/{path}", json.dumps(question).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request) as response:
            return json.load(response)

    def flow_run(self, directory: Path) -> str:
        """The id of the completed flow run with this run directory."""
        found = self.ask("flow_runs/filter", {"flow_runs": {"name": {"any_": ["tiny until report"]}}})
        (ours,) = [run for run in found if run["parameters"]["run_dir"] == str(directory)]
        assert ours["state_type"] == "COMPLETED"
        return ours["id"]


@pytest.fixture(scope="session")
def prefect_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrefectServer]:
    """A server of its own database and port, stopped at the end of the session."""
    home = tmp_path_factory.mktemp("prefect")

    def api(port: int) -> str:
        return f"http://127.0.0.1:{port}/api"

    def environment(port: int) -> dict[str, str]:
        return {
            **os.environ,
            "PREFECT_HOME": str(home),
            "PREFECT_API_URL": api(port),
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "DO_NOT_TRACK": "1",
            # Two torch processes at once slow each other down; tests start them one after the other.
            "COLUMNS": "200",
        }

    def command(port: int) -> list[str]:
        return [sys.executable, "-m", "prefect", "server", "start", "--port", str(port)]

    def health(port: int) -> urllib.request.Request:
        return urllib.request.Request(f"{api(port)}/health")

    with serving(command, health, home, environment=environment) as (port, process):
        yield PrefectServer(api(port), environment(port), process)


@dataclass(frozen=True)
class Dfnas:
    """The command, run in a process of its own."""

    environment: dict[str, str]

    def __call__(self, *arguments: str | Path, cwd: Path = PROJECT) -> subprocess.CompletedProcess[str]:
        """Run it to its end."""
        return subprocess.run(
            [sys.executable, "-m", "flows.cli", *map(str, arguments)],
            env=self.environment,
            cwd=cwd,
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )

    def kill_when(self, ready: Callable[[], bool], *arguments: str | Path) -> None:
        """Start it, and kill it with SIGKILL as soon as `ready`; fails if it ends before, or lets others in."""
        directory = arguments[arguments.index("--run-dir") + 1]
        command = [sys.executable, "-m", "flows.cli", *map(str, arguments)]
        process = subprocess.Popen(
            command, env=self.environment, cwd=PROJECT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            while not ready():
                assert process.poll() is None, "the run ended before the moment to kill it"
                time.sleep(0.01)
            if isinstance(directory, Path):  # A lease in a bucket is only known by its renewals, which take seconds.
                with pytest.raises(InUseError), exclusive(directory):
                    pass
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()


@pytest.fixture(scope="session")
def dfnas(prefect_server: PrefectServer) -> Dfnas:
    """The command against the session's server."""
    return Dfnas(prefect_server.environment)


@pytest.fixture(scope="session")
def tiny_config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo, shrunk to seconds; no real images."""
    config = yaml.safe_load((PROJECT / "configs" / "digits.yaml").read_text())
    config["name"] = "tiny"
    config["synthesis"] |= {"rounds": 2, "shards": 2, "batch_size": 16}
    config["synthesis"]["engine"] |= {"stages": [{"divisor": 1, "iterations": 40}], "warmup": 4}
    config["search"]["space"] = {"name": "nasbench201", "channels": 4, "cells": 1}
    config["search"]["strategy"] |= {"epochs": 3, "population": 6, "generations": 3, "crossovers": 2, "mutants": 2}
    config["search"] |= {"batch_size": 16, "max_macs": 60_000}
    config["retrain"] = {"epochs": 3, "warmup_epochs": 1, "batch_size": 16}
    config["baselines"] = ["random"]
    path = tmp_path_factory.mktemp("config") / "tiny.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


@pytest.fixture
def patient_config(tiny_config: Path, tmp_path: Path) -> Path:
    """The tiny config with a teacher of the same weights that waits in the middle of the first shard."""
    config = yaml.safe_load(tiny_config.read_text())
    del config["teacher"]["network"]
    factory = "tests.flows.patient_teacher:PatientResNet"
    config["teacher"] |= {"name": "checkpoint", "factory": factory, "arguments": {"folder": str(tmp_path)}}
    path = tmp_path / "patient.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


@pytest.fixture(scope="session")
def finished_run(dfnas: Dfnas, tiny_config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of an uninterrupted tiny run with a final look at real digits; tests must not change it."""
    directory = tmp_path_factory.mktemp("finished") / "run"
    result = dfnas("run", tiny_config, "--run-dir", directory)
    assert result.returncode == 0, result.stderr
    (directory / "terminal.txt").write_text(result.stdout + result.stderr)
    return directory


@dataclass(frozen=True)
class DeployedRun:
    """A run that a worker made.

    Attributes:
        directory: Its run directory.
        flow_run: Its id in Prefect.
        listed: What `prefect deployment ls` says.
    """

    directory: Path
    flow_run: str
    listed: str


@contextmanager
def running_worker(server: PrefectServer, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A worker of the pool that the deployments are in."""
    command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", "dfnas"]
    with log.open("w") as file:
        worker = subprocess.Popen(command, env=server.environment, cwd=PROJECT, stdout=file, stderr=subprocess.STDOUT)
    try:
        yield worker
    finally:
        worker.terminate()
        try:
            worker.wait(timeout=60)
        except subprocess.TimeoutExpired:
            worker.kill()
            worker.wait()


@pytest.fixture(scope="session")
def prefect(prefect_server: PrefectServer) -> Callable[..., str]:
    """Prefect's command, with the deployments in a pool; returns what it says, and fails if it does."""

    def command(*arguments: str) -> str:
        result = subprocess.run(
            [sys.executable, "-m", "prefect", *arguments],
            env=prefect_server.environment,
            cwd=PROJECT,
            capture_output=True,
            text=True,
            check=False,
            timeout=800,
        )
        assert result.returncode == 0, (result.stdout + result.stderr)[-2000:]
        return result.stdout

    command("work-pool", "create", "dfnas", "--type", "process")
    command("--no-prompt", "deploy", "--all")
    return command


def run_deployment(prefect: Callable[..., str], name: str, config: Path, directory: Path, *options: str) -> str:
    """Schedule a run of a deployment; the id of its flow run."""
    parameters = {"run_dir": str(directory), "config": yaml.safe_load(config.read_text())}
    given = [word for key, value in parameters.items() for word in ("--param", f"{key}={json.dumps(value)}")]
    text = prefect("deployment", "run", f"dfnas/{name}", *given, *options)
    found = re.search(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", text)
    assert found, text
    return found[0]


@pytest.fixture(scope="session")
def deployed_run(
    prefect: Callable[..., str],
    prefect_server: PrefectServer,
    tiny_config: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> DeployedRun:
    """`dfnas/full` on the tiny config, by the documented commands: pool, deploy, worker, deployment run."""
    directory = tmp_path_factory.mktemp("deployed") / "run"
    with running_worker(prefect_server, directory.parent / "worker.log"):
        flow_run = run_deployment(prefect, "full", tiny_config, directory, "--watch")
    return DeployedRun(directory, flow_run, prefect("deployment", "ls"))


@pytest.fixture
def schedule(prefect: Callable[..., str]) -> Callable[..., str]:
    """Schedules a run of a deployment, given by name, config and run directory; returns the id of the flow run."""
    return functools.partial(run_deployment, prefect)


@pytest.fixture
def worker(prefect_server: PrefectServer) -> Callable[[Path], AbstractContextManager[subprocess.Popen[bytes]]]:
    """Starts a worker that logs to a file, for as long as a with block lasts."""
    return functools.partial(running_worker, prefect_server)


@pytest.fixture
def short_silence(prefect_server: PrefectServer) -> Iterator[Automation]:
    """The server's automation that finds crashed runs, with the shortest silence that Prefect allows.

    Heartbeats are rarer, so a run that is alive is marked as well.
    """
    with temporary_settings({PREFECT_API_URL: prefect_server.api}):
        automation = watch_for_crashes(timedelta(seconds=10))
        assert watch_for_crashes(timedelta(seconds=10)).id == automation.id
        yield automation
        automation.delete()
