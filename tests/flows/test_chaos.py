"""A few kills of `benchmarks/chaos.py`, at moments drawn from a fixed seed."""

import random
import sys
from pathlib import Path

import pytest

from benchmarks.chaos import check, killed_run


@pytest.mark.slow
@pytest.mark.timeout(900)  # Three runs, on what may be a busy machine.
def test_a_run_killed_at_random_moments_ends_like_one_left_alone(
    dfnas, tiny_config: Path, finished_run: Path, tmp_path: Path
):
    command = [sys.executable, "-m", "flows.cli", "run", str(tiny_config)]
    killed = killed_run(command, tmp_path, kills=2, draws=random.Random(0), environment=dfnas.environment)
    assert len(killed) == 2
    check(tmp_path, finished_run, len(killed))
