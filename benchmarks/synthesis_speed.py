"""How fast a step of pixel synthesis is, between the least it can cost and the textbook way.

python -m benchmarks.synthesis_speed --shards --json speed.json

Per network, in images times steps per second, the median over short interleaved rounds in one process; ratios are taken
within a round:

floor      the bare frozen network in the precision and layout of ours: forward and gradient to its input, no more
reference  the textbook step: float32, trainable network, one forward hook per BatchNorm layer
ours       `PixelSynthesis`: window, forward with statistics, losses, gradient, Adam, clipping
compiled   the same with `compile: true` (--compile); its first call, which compiles, is shown apart

Peak memory is the growth of the resident set over a few steps, each variant in a process of its own (Linux only).
`--shards` compares two worker processes of one thread each with one process of two threads. On a machine that others
use too, `--threads 1 --clock cpu` counts processor time, which waiting for a core does not lengthen.
"""

import argparse
import copy
import functools
import json
import multiprocessing
import os
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torchvision
from safetensors.torch import load_file
from torch import Tensor, nn

from benchmarks.common import add_device, hardware
from nas_core.device import resolve_device
from nas_core.precision import resolve_precision
from nas_core.seeding import generator
from nas_core.settings.precision import Precision
from nas_core.settings.synthesis import LabelCalibration, LossWeights, PixelSpec, PixelStage
from nas_core.synthesis.config import SynthesisConfig
from nas_core.synthesis.labels import one_hot
from nas_core.synthesis.pixels import PixelSynthesis
from nas_core.teachers.networks import resnet20
from nas_core.teachers.teacher import Teacher

SEED = 0
WARM_UP = 3
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Case:
    """One network at one batch size.

    Attributes:
        network: "resnet20" (32x32, 10 classes) or "resnet50" (224x224, 1000 classes).
        batch: Images per step.
        steps: Steps per variant and round.
        precision: Arithmetic of floor and ours.
        clock: "wall" or "cpu", what is counted.
        weights: Safetensors file of the network; none: random weights, which cost the same.
    """

    network: str
    batch: int
    steps: int
    precision: Precision = "auto"
    clock: str = "wall"
    weights: Path | None = None
    device: str = "cpu"

    def teacher(self) -> Teacher:
        """The network as a teacher."""
        torch.manual_seed(SEED)
        small = self.network == "resnet20"
        module = resnet20() if small else torchvision.models.resnet50()
        if self.weights is not None:
            module.load_state_dict(load_file(self.weights))
        side, classes = (32, 10) if small else (224, 1000)
        device = resolve_device(self.device)
        return Teacher(module, (3, side, side), MEAN, STD, tuple(map(str, range(classes)))).to(device)

    def seconds(self, action: Callable[[], object]) -> float:
        """What an action takes, the work that it left to a GPU included."""
        self._wait()
        begin = CLOCKS[self.clock]()
        action()
        self._wait()
        return CLOCKS[self.clock]() - begin

    def now(self) -> float:
        """The time at which all that was asked for is done."""
        self._wait()
        return CLOCKS[self.clock]()

    def _wait(self) -> None:
        if self.device.startswith("cuda"):
            torch.cuda.synchronize(self.device)


CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.process_time}
CASES = {"resnet20": Case("resnet20", batch=128, steps=4), "resnet50": Case("resnet50", batch=16, steps=1)}

Run = Callable[[int], float]
"""Takes a number of steps, gives the mean seconds of a step."""


def floor(case: Case) -> Run:
    """Forward and input gradient of the bare network."""
    teacher = case.teacher()
    dtype = resolve_precision(case.precision, teacher.device)
    network = teacher.module.to(memory_format=torch.channels_last)
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            module.to(dtype)
    images = _noise(case, teacher).to(dtype, memory_format=torch.channels_last).requires_grad_()

    def step() -> None:
        torch.autograd.grad(network(images).sum(), images)

    return lambda steps: _mean_seconds(step, steps, case)


def reference(case: Case) -> Run:
    """The inversion step as the public codes write it (DeepInversion, arXiv:1912.08795)."""
    teacher, losses = case.teacher(), LossWeights()
    network = copy.deepcopy(teacher.module).requires_grad_(True)
    distances: list[Tensor] = []

    def hook(layer: nn.BatchNorm2d, inputs: tuple[Tensor, ...], _output: Tensor) -> None:
        channels = inputs[0].shape[1]
        mean = inputs[0].mean([0, 2, 3])
        var = inputs[0].permute(1, 0, 2, 3).contiguous().view([channels, -1]).var(1, unbiased=False)
        assert layer.running_mean is not None
        assert layer.running_var is not None
        distances.append(torch.norm(layer.running_var - var, 2) + torch.norm(layer.running_mean - mean, 2))

    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.register_forward_hook(hook)
    images = _noise(case, teacher).requires_grad_()
    labels = _targets(case, teacher).argmax(dim=1)
    optimiser = torch.optim.Adam([images], lr=0.1, betas=(0.5, 0.9))
    black, white = teacher.valid_range(teacher.device)
    draws = generator(SEED, "benchmark.jitter")

    def step() -> None:
        distances.clear()
        rows, columns = torch.randint(-2, 3, (2,), generator=draws).tolist()
        view = torch.roll(images, shifts=(rows, columns), dims=(2, 3)).flip(3)
        optimiser.zero_grad()
        network.zero_grad()
        loss = nn.functional.cross_entropy(network(view), labels)
        loss = loss + losses.batch_norm * (losses.first_batch_norm * distances[0] + torch.stack(distances[1:]).sum())
        differences = (
            view[:, :, :, 1:] - view[:, :, :, :-1],
            view[:, :, 1:, :] - view[:, :, :-1, :],
            view[:, :, 1:, 1:] - view[:, :, :-1, :-1],
            view[:, :, 1:, :-1] - view[:, :, :-1, 1:],
        )
        loss = loss + 1e-4 * torch.stack([torch.norm(difference) for difference in differences]).sum()
        loss = loss + losses.l2 * torch.norm(view.reshape(case.batch, -1), dim=1).mean()
        loss.backward()
        optimiser.step()
        with torch.no_grad():
            images.clamp_(black, white)

    return lambda steps: _mean_seconds(step, steps, case)


def ours(case: Case, compile: bool = False) -> Run:  # noqa: A002
    """The pixel engine with its default losses, on a canvas larger than the input."""
    teacher = case.teacher()
    canvas = SynthesisConfig().canvas_size(teacher.input_shape)
    targets = _targets(case, teacher)

    def run(steps: int) -> float:
        # Every call sets an engine up, which floor and reference did once; its first steps pay for it.
        stages = (PixelStage(iterations=WARM_UP + steps),)
        settings = PixelSpec(stages=stages, warmup=0, precision=case.precision, compile=compile).values()
        engine = PixelSynthesis(teacher, canvas_size=canvas, labels=LabelCalibration(), **settings)
        times: list[float] = []

        def progress(done: int, total: int, _figures: object) -> None:
            if done in (WARM_UP, total):
                times.append(case.now())

        engine.make(targets, generator(SEED, "benchmark.ours"), progress=progress)
        return (times[1] - times[0]) / steps

    return run


VARIANTS: dict[str, Callable[[Case], Run]] = {
    "floor": floor,
    "reference": reference,
    "ours": ours,
    "compiled": functools.partial(ours, compile=True),
}


def measure(case: Case, rounds: int, variants: Sequence[str]) -> dict[str, Any]:
    """Speeds, ratios and peak memory of variants on one case."""
    runs = {name: VARIANTS[name](case) for name in variants}
    first = {name: case.seconds(lambda run=run: run(1)) for name, run in runs.items()}
    # Seconds per step as [round][variant]: within a round the machine is busy with other things about equally.
    rows = [{name: run(case.steps) for name, run in runs.items()} for _ in range(rounds)]
    return {
        "case": asdict(case) | {"weights": case.weights and case.weights.name},
        "dtype": str(resolve_precision(case.precision, resolve_device(case.device))),
        **{name: case.batch / statistics.median(row[name] for row in rows) for name in runs},
        **{
            f"{name}_over_{other}": statistics.median(row[other] / row[name] for row in rows)
            for name in variants[2:]
            for other in variants[:2]
        },
        "best_round": {name: case.batch / min(row[name] for row in rows) for name in runs},
        "rounds": rounds,
        "first_call_s": first,
        "peak_memory_mib": {name: _alone(peak_memory, name, case) for name in variants},
    }


def peak_memory(name: str, case: Case) -> float:
    """Growth over the variant's first steps, MiB: of this process's resident set, or of what it holds on the GPU."""
    on_gpu = case.device.startswith("cuda")
    held = (lambda: torch.cuda.max_memory_allocated(case.device) / 2**20) if on_gpu else _resident
    run = VARIANTS[name](case)
    before = held()
    run(3)
    return held() - before


def measure_shards(case: Case, steps: int, rounds: int) -> dict[str, float]:
    """Images times steps per second of two shards: two workers of one thread, and one worker of two threads."""
    speeds: dict[str, list[float]] = {"two_workers_one_thread": [], "one_worker_two_threads": []}
    context = multiprocessing.get_context("spawn")
    for _ in range(rounds):
        with context.Manager() as manager, ProcessPoolExecutor(2, mp_context=context) as pool:
            barrier = manager.Barrier(2)
            shards = [pool.submit(_shard, case, steps, 1, barrier) for _ in range(2)]
            speeds["two_workers_one_thread"].append(sum(shard.result() for shard in shards))
        speeds["one_worker_two_threads"].append(_alone(_shard, case, steps, 2, None))
    return {name: statistics.median(values) for name, values in speeds.items()}


def _shard(case: Case, steps: int, threads: int, barrier: Any) -> float:
    """Images times steps per second of one shard in this process."""
    torch.set_num_threads(threads)
    run = ours(case)
    run(1)
    if barrier is not None:
        barrier.wait()
    return case.batch / run(steps)


def _noise(case: Case, teacher: Teacher) -> Tensor:
    noise = torch.randn(case.batch, *teacher.input_shape, generator=generator(SEED, "benchmark.noise"))
    return noise.to(teacher.device)


def _targets(case: Case, teacher: Teacher) -> Tensor:
    return one_hot(torch.arange(case.batch) % teacher.num_classes, teacher.num_classes).to(teacher.device)


def _mean_seconds(step: Callable[[], object], steps: int, case: Case) -> float:
    def all_steps() -> None:
        for _ in range(steps):
            step()

    return case.seconds(all_steps) / steps


def _resident() -> float:
    """The most memory this process ever held, MiB; not `ru_maxrss`, which starts at what the parent held."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 2**10


def _alone(function: Callable[..., float], *arguments: Any) -> float:
    """The function's result from a fresh process."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def _environment(device: torch.device) -> dict[str, Any]:
    return {
        "command": shlex.join(["python", "-m", "benchmarks.synthesis_speed", *sys.argv[1:]]),
        **hardware(device),
        "torchvision": torchvision.__version__,
        "load_average": os.getloadavg(),
        "seed": SEED,
    }


def main() -> None:
    """Measure what the command line asks for, print a Markdown table, and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--teacher-weights", type=Path, help="safetensors file of the ResNet-20; none: random weights")
    parser.add_argument("--precision", choices=["auto", "float32", "bfloat16"], default="auto")
    parser.add_argument("--threads", type=int, help="threads of torch; none: one per core")
    add_device(parser)
    parser.add_argument("--compile", action="store_true", help="also measure ours as compiled code")
    parser.add_argument("--batch", type=int, help="images per step, instead of each network's own number")
    parser.add_argument("--steps", type=int, help="steps per variant and round, instead of each network's own number")
    parser.add_argument("--clock", choices=list(CLOCKS), default="wall", help="what is counted")
    parser.add_argument("--rounds", type=int, default=12, help="interleaved rounds")
    parser.add_argument("--shards", action="store_true", help="also compare worker processes with threads")
    parser.add_argument("--json", type=Path, help="where to write all figures")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    report: dict[str, Any] = {"environment": _environment(resolve_device(arguments.device)), "networks": {}}
    variants = list(VARIANTS) if arguments.compile else list(VARIANTS)[:3]
    ratios = [f"{name}_over_{other}" for name in variants[2:] for other in variants[:2]]
    columns = ["network", "batch", "dtype", *variants, *ratios, "peak MiB (same order)"]
    print(f"| {' | '.join(columns).replace('_over_', ' / ')} |\n{'|---' * len(columns)}|")
    for name in arguments.networks:
        weights = arguments.teacher_weights if name == "resnet20" else None
        case = replace(
            CASES[name],
            precision=arguments.precision,
            clock=arguments.clock,
            weights=weights,
            device=arguments.device,
            batch=arguments.batch or CASES[name].batch,
            steps=arguments.steps or CASES[name].steps,
        )
        row = report["networks"][name] = measure(case, arguments.rounds, variants)
        cells = [name, str(case.batch), row["dtype"], *(f"{row[variant]:.4g}" for variant in variants)]
        cells += [f"{row[ratio]:.2f}" for ratio in ratios]
        cells.append(", ".join(f"{row['peak_memory_mib'][variant]:.0f}" for variant in variants))
        print(f"| {' | '.join(cells)} |", flush=True)
        best = ", ".join(f"{variant} {row['best_round'][variant]:.4g}" for variant in variants)
        print(f"fastest round: {best}", flush=True)
    if arguments.shards:
        case = replace(CASES["resnet20"], weights=arguments.teacher_weights, precision=arguments.precision)
        report["shards"] = measure_shards(case, steps=40, rounds=2)
        print("\n" + "\n".join(f"{name}: {speed:.4g}" for name, speed in report["shards"].items()))
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
