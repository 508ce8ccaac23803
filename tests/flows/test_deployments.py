"""`prefect deploy`, a worker, and `prefect deployment run dfnas/full`, as documented."""

import json
import os
from datetime import timedelta
from pathlib import Path

import pytest
import yaml

from flows.crashes import SILENCE

PROJECT = Path(__file__).parents[2]

# The first of them may have to wait for server, worker and run, on a busy machine.
pytestmark = pytest.mark.timeout(900)


def test_every_stage_has_a_deployment(deployed_run):
    assert all(
        f"dfnas/{name}" in deployed_run.listed for name in ("full", "synthesis", "search", "retrain", "evaluate")
    )


def test_a_deployed_run_ends_with_the_same_digests_as_the_command(deployed_run, finished_run: Path):
    results, reference = (
        json.loads((directory / "results.json").read_text()) for directory in (deployed_run.directory, finished_run)
    )
    assert results["digests"] == reference["digests"]


def test_a_run_that_is_late_with_a_heartbeat_is_not_taken_for_dead():
    """Four have to be missing in a row, of the command's runs and of deployed ones."""
    deployments = yaml.safe_load((PROJECT / "prefect.yaml").read_text())["deployments"]
    environments = [os.environ, *(deployment["work_pool"]["job_variables"]["env"] for deployment in deployments)]
    for environment in environments:
        assert timedelta(seconds=4 * int(environment["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"])) <= SILENCE


def test_prefects_log_says_in_which_arithmetic_the_teacher_ran(deployed_run, prefect_server):
    wanted = {"logs": {"flow_run_id": {"any_": [deployed_run.flow_run]}}, "limit": 200}
    assert any("teacher runs on " in line["message"] for line in prefect_server.ask("logs/filter", wanted))
