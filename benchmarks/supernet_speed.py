"""How fast supernets train, against the time that their operations take by themselves.

python -m benchmarks.supernet_speed --spaces nasbench201 shufflenet --json out.json

Per space, single path (SPOS) and mixture (DARTS, its weight steps), images per second, the median over short
interleaved rounds in one process; overheads are taken within a round:

operations  forward and backward of each module that the step runs, alone, on the input that it has in the supernet: the
            operations of the gates, and what is around them (stem, reductions, head); their sum
pass        forward and backward of the supernet
step        a whole step of the training loop: pass, loss, clipping, SGD; labels are ready

Processor time of one thread is counted, so that other work on the machine matters little.
"""

import argparse
import json
import os
import platform
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nas_core.checkpoint import Checkpoint
from nas_core.ops.mixed import Gate, Gates, MixedOperation, indices_of
from nas_core.precision import mixed_precision, resolve_precision
from nas_core.search_spaces import SearchSpace, spaces
from nas_core.seeding import generator
from nas_core.settings.differentiable import DifferentiableSpec
from nas_core.settings.precision import Precision
from nas_core.strategies import SearchTask, macs_budget
from nas_core.strategies.mixture import Mixture
from nas_core.strategies.sampling import Uniform
from nas_core.strategies.spos import SinglePath
from nas_core.teachers.networks import resnet20
from nas_core.teachers.teacher import Teacher
from nas_core.training.batches import Batch, SyntheticBatches
from nas_core.training.loop import Trainee, train
from nas_core.training.recipe import Recipe

SEED, WARM_UP = 0, 2
# A path with `none` leaves operations before it without a gradient, which the sum over the operations would count.
PATHS_WITHOUT_NONE = {"operations": ["skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3"]}
# Spaces whose cells are all alike, or whose blocks are the slots.
SPACES: dict[str, dict[str, Any]] = {
    "nasbench201": {"channels": 16, "cells": 1},
    "shufflenet": {"stage_blocks": [2, 2, 2], "stage_channels": [64, 160, 320], "strides": [1, 2, 2, 2]},
}
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Unit:
    """A module that runs by itself in the supernet.

    Attributes:
        module: The module.
        slot: The slot whose gate decides whether it runs, and its index there; None: it always runs.
    """

    module: nn.Module
    slot: tuple[int, int] | None


@dataclass(frozen=True)
class Ready:
    """Batches whose labels are made already, always in the same order."""

    batches: Sequence[Batch]

    def __len__(self) -> int:
        """Batches in an epoch."""
        return len(self.batches)

    def epoch(self, generator: torch.Generator) -> Iterator[Batch]:  # noqa: ARG002 - nothing is drawn
        """All of them."""
        yield from self.batches


class Bench:
    """One space and mode: its supernet, its units with their inputs, and batches.

    Args:
        name: Of the space.
        mode: "path" or "mixture".
        batch_size: Images per step.
        steps: Steps per round.
        precision: Arithmetic of training.
    """

    def __init__(self, name: str, mode: str, batch_size: int, steps: int, precision: Precision) -> None:
        settings = (
            {"name": name} | SPACES[name] | (PATHS_WITHOUT_NONE if (name, mode) == ("nasbench201", "path") else {})
        )
        spec = spaces.spec(name).model_validate(settings)
        self.space: SearchSpace = spaces.build(spec, input_shape=(3, 32, 32), num_classes=10)
        self.mode: str = mode
        self.precision: Precision = precision
        self.dtype = resolve_precision(precision, CPU)
        self.task = self._task(batch_size, WARM_UP + steps)
        self.batches = Ready(list(self.task.train.epoch(generator(SEED, "benchmark.batches"))))
        self.supernet = self.task.supernet().to(memory_format=torch.channels_last).train()
        self.units, self._inputs, self._slopes = self._record_maps()

    def _task(self, batch_size: int, steps: int) -> SearchTask:
        torch.manual_seed(SEED)
        teacher = Teacher(resnet20(), (3, 32, 32), (0.5,) * 3, (0.25,) * 3, tuple(map(str, range(10))))
        pixels = torch.randint(256, (batch_size * steps, 3, 32, 32), generator=generator(SEED, "benchmark.pixels"))
        images = SyntheticBatches(pixels.to(torch.uint8), teacher, batch_size)
        return SearchTask(self.space, images, images, macs_budget(), 3.0, SEED, CPU)

    def mixture(self) -> list[Gate]:
        """Weights of all operations."""
        return [torch.full((len(slot.operations),), 1 / len(slot.operations)) for slot in self.space.slots]

    def trainee(self) -> Trainee:
        """The supernet as SPOS or DARTS trains it."""
        if self.mode == "path":
            return SinglePath(self.supernet, SEED, Uniform(self.space))
        # Of two epochs alpha learns in the second only, which is not run.
        return Mixture(self.supernet, self.task, self.space, DifferentiableSpec(epochs=2, alpha_start=0.5))

    def step_times(self) -> tuple[list[float], list[Gates]]:
        """Seconds of each step of a round, and the gates that it had; the first ones left out."""
        trainee, ends, gates = self.trainee(), [], []
        watched = self.supernet.register_forward_pre_hook(lambda _, inputs: gates.append(inputs[1]))
        train(
            trainee,
            self.batches,
            Recipe(epochs=1, warmup_epochs=0, learning_rate=1e-3, precision=self.precision),
            self.task.objective,
            seed=SEED,
            stage="benchmark",
            checkpoint=Checkpoint(),
            progress=lambda *_: ends.append(time.process_time()),
        )
        watched.remove()
        return [end - begin for begin, end in zip(ends[WARM_UP - 1 :], ends[WARM_UP:], strict=False)], gates[WARM_UP:]

    def pass_time(self, gates: Gates) -> float:
        """Seconds of a forward and backward pass."""
        images = self.batches.batches[0].images

        def run() -> None:
            with mixed_precision(self.dtype, CPU):
                logits = self.supernet(images, gates)
            logits.backward(torch.ones_like(logits))

        return self._timed(run)

    def operations_time(self, gates: Gates) -> float:
        """Seconds of forward and backward of each unit that runs under some gates, alone.

        First all go forward, then all backward, so that what they keep for it is as cold as in the network.
        """
        running = [
            (unit.module, x.detach().requires_grad_(x is not self._inputs[0]), slope)
            for unit, x, slope in zip(self.units, self._inputs, self._slopes, strict=True)
            if unit.slot is None or _runs(gates[unit.slot[0]], unit.slot[1])
        ]

        def run() -> None:
            with mixed_precision(self.dtype, CPU):
                outs = [module(x) for module, x, _ in running]
            for out, (_, _, slope) in zip(reversed(outs), reversed(running), strict=True):
                if out.requires_grad:
                    out.backward(slope)

        return self._timed(run)

    def _timed(self, run: Callable[[], None]) -> float:
        self.supernet.zero_grad(set_to_none=True)
        begin = time.process_time()
        run()
        return time.process_time() - begin

    def _record_maps(self) -> tuple[list[Unit], list[Tensor], list[Tensor]]:
        """The units of a mixture, with the input of each and a slope of its output; the images come first."""
        units = list(_units(self.supernet, self.space))
        seen: dict[nn.Module, tuple[Tensor, Tensor]] = {}

        def record(module: nn.Module, inputs: tuple[Tensor, ...], out: Tensor) -> None:
            seen[module] = inputs[0], out

        hooks = [unit.module.register_forward_hook(record) for unit in units]
        with mixed_precision(self.dtype, CPU), torch.no_grad():
            self.supernet(self.batches.batches[0].images, self.mixture())
        for hook in hooks:
            hook.remove()
        running = [unit for unit in units if unit.module in seen]
        inputs, outs = zip(*(seen[unit.module] for unit in running), strict=True)
        return running, [x.clone() for x in inputs], [torch.ones_like(out) for out in outs]


def _units(module: nn.Module, space: SearchSpace) -> Iterator[Unit]:
    """The modules of a supernet that run by themselves: operations, and the largest modules without any."""
    mixed = [m for m in module.modules() if isinstance(m, MixedOperation)]
    # Mixed operations come in the order of the slots, once or in every cell.
    slots = {m: number % len(space.slots) for number, m in enumerate(mixed)}

    def walk(part: nn.Module) -> Iterator[Unit]:
        if isinstance(part, MixedOperation):
            yield from (Unit(op, (slots[part], index)) for index, op in enumerate(part.operations))
        elif any(isinstance(m, MixedOperation) for m in part.modules()):
            for child in part.children():
                yield from walk(child)
        elif any(True for _ in part.parameters()):
            yield Unit(part, None)

    yield from walk(module)


def _runs(gate: Gate, index: int) -> bool:
    return isinstance(gate, Tensor) or index in indices_of(gate)  # type: ignore[arg-type]


def measure(bench: Bench, rounds: int) -> dict[str, Any]:
    """Speeds and overheads of a space in one mode."""
    rows = []
    for _ in range(rounds):
        steps, gates = bench.step_times()
        rows.append(
            {
                "operations": sum(bench.operations_time(gate) for gate in gates),
                "pass": sum(bench.pass_time(gate) for gate in gates),
                "step": sum(steps),
                "count": len(steps),
            }
        )
    images = bench.task.train.batch_size
    return {
        "space": bench.space.name,
        "mode": bench.mode,
        **{
            name: statistics.median(images * row["count"] / row[name] for row in rows)
            for name in ("operations", "pass", "step")
        },
        **{
            f"{name}_overhead": statistics.median(row[name] / row["operations"] - 1 for row in rows)
            for name in ("pass", "step")
        },
        "rounds": rows,
    }


def environment() -> dict[str, Any]:
    """What the numbers depend on."""
    return {
        "command": shlex.join(["python", "-m", "benchmarks.supernet_speed", *sys.argv[1:]]),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "processor": torch.cpu.get_capabilities().get("cpu_name", platform.machine()),
        "threads": torch.get_num_threads(),
        "load_average": os.getloadavg(),
        "spaces": SPACES,
    }


def main() -> None:
    """Measure what the command line asks for, print a Markdown table, and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spaces", nargs="+", choices=list(SPACES), default=["nasbench201", "shufflenet"])
    parser.add_argument("--modes", nargs="+", choices=["path", "mixture"], default=["path", "mixture"])
    parser.add_argument("--batch", type=int, default=64, help="images per step")
    parser.add_argument("--steps", type=int, default=4, help="steps per round")
    parser.add_argument("--rounds", type=int, default=8, help="interleaved rounds")
    parser.add_argument("--precision", choices=["auto", "float32", "bfloat16"], default="auto")
    parser.add_argument("--json", type=Path, help="where to write all figures")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    report: dict[str, Any] = {"environment": environment(), "rows": []}
    print("| space | mode | dtype | operations | pass | step | overhead of the pass | overhead of the step |")
    print("|---|---|---|---|---|---|---|---|")
    for name in arguments.spaces:
        for mode in arguments.modes:
            bench = Bench(name, mode, arguments.batch, arguments.steps, arguments.precision)
            row = measure(bench, arguments.rounds) | {"dtype": str(bench.dtype).removeprefix("torch.")}
            report["rows"].append(row)
            speeds = " | ".join(f"{row[key]:.4g}" for key in ("operations", "pass", "step"))
            overheads = " | ".join(f"{100 * row[key]:.1f} %" for key in ("pass_overhead", "step_overhead"))
            print(f"| {name} | {mode} | {row['dtype']} | {speeds} | {overheads} |", flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
