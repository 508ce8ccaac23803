"""Kill runs at seeded random moments until each is done, and compare with one that was left alone.

    python -m benchmarks.chaos --kills 20

Every attempt is killed by SIGKILL once it has begun one to three pieces of work, up to a second later; so the kills
move on through all stages. Prints a line per run, and fails unless all end with the digests of the undisturbed one,
with nothing half-written left, and no piece begun more often than once and once per kill.
"""

import argparse
import itertools
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from flows.serve import background, wait_for

BEGUN = re.compile(r"prefect\.task_runs: (\S+) starts$", re.MULTILINE)
TINY = (
    "name=tiny", "synthesis.shards=2", "synthesis.batch_size=16", "synthesis.engine.stages=[{iterations: 40}]",
    "synthesis.engine.warmup=4", "search.space={name: nasbench201, channels: 4, cells: 1}",
    "search.strategy={name: spos, epochs: 3, population: 6, generations: 3, crossovers: 2, mutants: 2}",
    "search.batch_size=16", "search.max_macs=60000", "retrain={epochs: 3, warmup_epochs: 1, batch_size: 16}",
)  # fmt: skip


def main() -> None:
    """Kill as often as asked for, over as many runs as that takes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--port", type=int, default=4280, help="of the Prefect server that is started for this")
    options = parser.parse_args()
    settings = [word for setting in TINY for word in ("--set", setting)]
    api = f"http://127.0.0.1:{options.port}/api"
    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {"PREFECT_HOME": f"{folder}/prefect", "PREFECT_API_URL": api}
        with background("server", "start", "--port", str(options.port)):
            wait_for(api)
            command = [sys.executable, "-m", "flows.cli", "run", "configs/digits.yaml", *settings]
            alone = Path(folder) / "alone"
            killed_run(command, alone, 0, random.Random(0), os.environ)
            kills: list[str] = []
            for number in itertools.count():
                directory = Path(folder) / f"run-{number}"
                draws = random.Random(f"{options.seed}/{number}")
                now = killed_run(command, directory, options.kills - len(kills), draws, os.environ)
                check(directory, alone, len(now))
                print(f"run {number}: killed in {', '.join(now) or 'nothing'}; then the same bytes", flush=True)
                kills += now
                if len(kills) >= options.kills:
                    print(f"{len(kills)} kills in {number + 1} runs")
                    return


def killed_run(
    command: list[str], directory: Path, kills: int, draws: random.Random, environment: Mapping[str, str]
) -> list[str]:
    """Run a command until it is done, killing it at random moments.

    Args:
        command: `dfnas run` without a directory.
        directory: The run directory.
        kills: At most how often.
        draws: Source of the moments.
        environment: Of the command.

    Returns:
        What it had begun last each time that it was killed.
    """
    killed: list[str] = []
    while True:
        before, more, delay = len(begun(directory)), draws.randint(1, 3), draws.random()
        process = subprocess.Popen(
            [*command, "--run-dir", str(directory)], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        try:
            while process.poll() is None and (len(killed) == kills or len(begun(directory)) < before + more):
                time.sleep(0.01)
            if process.poll() is None:
                time.sleep(delay)
        finally:
            process.kill()
        _, text = process.communicate()
        if process.returncode == 0:
            return killed
        if process.returncode > 0:
            raise RuntimeError(f"the run failed by itself: {text.decode()}")
        killed.append(begun(directory)[-1])


def begun(directory: Path) -> list[str]:
    """The pieces of work that a run has begun, over all attempts."""
    log = directory / "dfnas.log"
    return BEGUN.findall(log.read_text()) if log.exists() else []


def check(directory: Path, alone: Path, kills: int) -> None:
    """Compare a killed run with one that was left alone.

    Raises:
        AssertionError: If they differ, something half-written is left, or work was done too often.
    """
    ours, theirs = (json.loads((run / "results.json").read_text())["digests"] for run in (directory, alone))
    assert ours == theirs, (ours, theirs)
    leftovers = [*directory.rglob("*.partial"), *(directory / "checkpoints").iterdir()]
    assert not leftovers, leftovers
    often = {piece: count for piece, count in Counter(begun(directory)).items() if count > 1 + kills}
    assert not often, often


if __name__ == "__main__":
    main()
