"""What Prefect and the storage cost per shard and round, with shards in which there is next to nothing to compute.

    taskset -c 1 python -m benchmarks.orchestration --sizes 100 1000
    taskset -c 1 python -m benchmarks.orchestration --sizes --copies 1000 10000

One round of N shards of two canvases and one step each, one after the other, against a server of its own with SQLite.
Then one shard's manifest is deleted and the run is done again. With `--copies`, all shards but that one are copies of
its files with manifests of their own, which saves making them; and only resuming is measured.

Per shard-round: the wall time of the first run, from Prefect's "Beginning flow run" to its "Finished", and what
processor time the flow (with its workers, if `--execution` has any) and the server took, as the difference between the
two runs, so that starting up is not counted; the small step and the storage are. Resuming: the wall time of the same
stretch, and of the whole command, whose processor time includes its start and that of its workers. Memory is the peak
of the resident set, of the flow's process and of the largest of the server's.
"""

import argparse
import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from prefect.logging import disable_run_logger

from flows.config_file import read_config
from flows.serve import background, wait_for
from storage.dataset import SyntheticStore
from storage.files import sealed
from tasks.run import open_run
from tasks.stage import piece_name
from tasks.stages import commit_dataset, initialise_noise, synthesize

CONFIG = Path("configs/digits.yaml")
MOMENT = re.compile(r"^(\S+ \S+) INFO prefect\.flow_runs: (Beginning flow run|Finished in state)", re.MULTILINE)
SETTINGS = (
    "name=orchestration", "synthesis.rounds=1", "synthesis.batch_size=2", "synthesis.labels.windows=1",
    "synthesis.engine.stages=[{iterations: 1}]", "synthesis.engine.warmup=0", "search.validation_fraction=0.5",
)  # fmt: skip


@dataclass(frozen=True)
class Attempt:
    """One flow run: wall time, that of the whole command, processor time of its process and of the server, in seconds.

    Memory is the peak of the flow's process, in bytes.
    """

    wall: float
    command: float
    flow: float
    server: float
    memory: int


def main() -> None:
    """Measure each size and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="*", default=[100])
    parser.add_argument("--copies", type=int, nargs="*", default=[], help="sizes of which only resuming is measured")
    parser.add_argument("--execution", default="{name: local}", help="as in a config")
    parser.add_argument("--port", type=int, default=4281, help="of the Prefect server that is started for this")
    options = parser.parse_args()
    api = f"http://127.0.0.1:{options.port}/api"
    columns = (
        "shard-rounds", "wall, each", "flow's processor, each", "server's, each", "resume, one missing: wall",
        "the whole command", "its processor", "flow", "server",
    )  # fmt: skip
    print(f"| {' | '.join(columns)} |")
    print("|---" * len(columns) + "|")
    for size, copies in [*((size, False) for size in options.sizes), *((size, True) for size in options.copies)]:
        with tempfile.TemporaryDirectory() as folder:
            os.environ |= {"PREFECT_HOME": f"{folder}/prefect", "PREFECT_API_URL": api}
            with background("server", "start", "--port", str(options.port)) as server:
                wait_for(api)
                print(measure(size, copies, options.execution, Path(folder) / "run", server.pid), flush=True)


def measure(size: int, copies: bool, execution: str, directory: Path, server: int) -> str:
    """A row of the table for one number of shard-rounds."""
    if copies:
        copy_shards(size, execution, directory)
        made = None
    else:
        made = attempt(size, execution, directory, server)
    manifests = sorted((directory / "manifests").glob("synthesis-*.json"))
    assert len(manifests) == size
    manifests[size // 2].unlink()
    resumed = attempt(size, execution, directory, server)
    assert manifests[size // 2].exists()
    figures = [f"{size:,}", "-", "-", "-"]
    if made is not None:
        seconds = (made.wall / size, (made.flow - resumed.flow) / size, (made.server - resumed.server) / size)
        figures = [f"{size:,}", *(f"{value:.3f} s" for value in seconds)]
    figures += [f"{value:.1f} s" for value in (resumed.wall, resumed.command, resumed.flow)]
    memory = ((made or resumed).memory, max(peak_memory(pid) for pid in family(server)))
    return f"| {' | '.join([*figures, *(f'{count / 2**20:.0f} MiB' for count in memory)])} |"


def chosen(size: int, execution: str) -> list[str]:
    """The settings of a run."""
    return [*SETTINGS, f"synthesis.shards={size}", f"execution={execution}"]


def copy_shards(size: int, execution: str, directory: Path) -> None:
    """A finished synthesis of which one shard was made, and the others are copies of its files."""
    config = read_config(CONFIG, chosen(size, execution))
    run, position = open_run(config, str(directory)), {"round": 0, "shard": size // 2}
    with disable_run_logger():
        first = initialise_noise.perform(run, [], {})
        made = synthesize.perform(run, [first], position)
    store = SyntheticStore.open(run.layout.dataset)
    sources = [*store.object_paths(0, size // 2), run.layout.records(made.piece)]
    manifests = []
    for shard in range(size):
        piece = piece_name(synthesize.name, {"round": 0, "shard": shard})
        targets = [*store.object_paths(0, shard), run.layout.records(piece)]
        digests = {}
        for source, target in zip(sources, targets, strict=True):
            target.parent.mkdir(parents=True, exist_ok=True)
            if source != target:
                shutil.copyfile(source, target)
            digests[str(target.relative_to(directory))] = made.files[str(source.relative_to(directory))]
        key = synthesize.key(run, [first], {"round": 0, "shard": shard})
        manifests.append(made.model_copy(update={"piece": piece, "key": key, "files": digests}))
        # As `Manifest.write` does, but in the hands of the operating system.
        run.layout.manifest(piece).write_text(json.dumps(sealed(manifests[-1].model_dump(mode="json"))))
    key = commit_dataset.key(run, [manifests], {})
    commit = made.model_copy(update={"piece": "dataset", "key": key, "files": {}, "figures": {}})
    commit.write(run.layout.manifest("dataset"))


def attempt(size: int, execution: str, directory: Path, server: int) -> Attempt:
    """Make the shards that are missing, with the command."""
    settings = [word for setting in chosen(size, execution) for word in ("--set", setting)]
    command = [sys.executable, "-m", "flows.cli", "run", str(CONFIG), "--run-dir", str(directory)]
    before, started = processor_time(server), time.monotonic()
    process = subprocess.Popen([*command, "--until", "synthesis", *settings], stdout=subprocess.DEVNULL)
    memory = 0
    while os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        memory = max(memory, peak_memory(process.pid))
        time.sleep(0.2)
    command_time = time.monotonic() - started
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    moments = [datetime.fromisoformat(time) for time, _ in MOMENT.findall((directory / "dfnas.log").read_text())]
    wall = (moments[-1] - moments[-2]).total_seconds()
    flow = usage.ru_utime + usage.ru_stime
    return Attempt(wall, command_time, flow, processor_time(server) - before, memory)


def processor_time(pid: int) -> float:
    """User and system time of a process and its descendants so far, in seconds."""
    ticks = 0
    for member in family(pid):
        with contextlib.suppress(OSError):
            after_name = Path(f"/proc/{member}/stat").read_text().rpartition(")")[2].split()
            ticks += int(after_name[11]) + int(after_name[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def peak_memory(pid: int) -> int:
    """The most memory that a process has had resident, in bytes; 0 if it has ended."""
    with contextlib.suppress(OSError, StopIteration):
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        return 1024 * int(next(line for line in lines if line.startswith("VmHWM")).split()[1])
    return 0


def family(pid: int) -> Iterator[int]:
    """A process and its descendants."""
    yield pid
    with contextlib.suppress(OSError):
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            yield from family(int(child))


if __name__ == "__main__":
    main()
