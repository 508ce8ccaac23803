"""What fits into memory: a lower bound for a synthesis shard, to refuse what cannot work, and a share for canvases."""

import math
import os
from pathlib import Path

import torch
from jaxtyping import UInt8
from torch import Tensor, nn

from nas_core.errors import InputError
from nas_core.execution import Execution, Local
from nas_core.settings.synthesis import GeneratorSpec
from nas_core.synthesis.config import SynthesisConfig
from nas_core.synthesis.generator_network import ImageGenerator, kept_tensors
from nas_core.teachers.teacher import Teacher

# Canvas, gradient and Adam's two moments, in float32.
BYTES_PER_CANVAS_VALUE = 4 * 4
# The least that an activation kept for the backward pass takes: bfloat16.
BYTES_PER_ACTIVATION = 2
# Of a device's memory, how much at most holds canvases: an eighth.
DEVICE_SHARE = 8
# Measured peaks over the lower bound that `shard_bytes` gives.
PEAK_FACTOR = 2
CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")


def check_memory(teacher: Teacher, config: SynthesisConfig, at_once: int = 1) -> None:
    """Refuse shards that are larger than the whole memory of the teacher's device.

    Args:
        teacher: On the device.
        config: Of the shards.
        at_once: Shards that share that device.

    Raises:
        InputError: With both numbers.
    """
    needed, there = at_once * shard_bytes(teacher, config), total_memory(teacher.device)
    if needed > there:
        canvas = "x".join(map(str, config.canvas_size(teacher.input_shape)))
        raise InputError(
            f"{'one shard' if at_once == 1 else f'{at_once} shards at once'} of {config.batch_size} canvases of "
            f"{canvas} takes at least {_gib(needed)} of memory, and {teacher.device} has {_gib(there)}: lower "
            f"synthesis.batch_size{'' if at_once == 1 else ', execution.workers'} or synthesis.canvas"
        )


def canvas_memory(execution: Execution) -> int:
    """Memory that the canvases may take in search and retraining, in bytes, of each process."""
    if execution.canvas_memory_gib is not None:
        return int(execution.canvas_memory_gib * 2**30)
    processes = 1 if isinstance(execution, Local) else execution.workers
    return total_memory(torch.device("cpu")) // 4 // processes


def near(canvases: UInt8[Tensor, "images channels height width"], device: torch.device) -> Tensor:
    """The canvases on a CUDA device if they take a small share of its free memory; else as they are."""
    if device.type == "cuda" and canvases.nbytes <= torch.cuda.mem_get_info(device)[0] // DEVICE_SHARE:
        return canvases.to(device)
    return canvases


def shard_bytes(teacher: Teacher, config: SynthesisConfig) -> int:
    """Memory that one shard takes at least, in bytes: its canvases as they are optimised, and what the teacher keeps.

    Measured peaks are about twice as high (docs/results/synthesis-speed.md). The generator's network counts, too.
    """
    values = canvas_bytes(teacher, config)
    kept = activations(teacher)
    if isinstance(config.engine, GeneratorSpec):
        latents = torch.zeros(1, config.engine.latent, device="meta")
        targets = torch.zeros(1, teacher.num_classes, device="meta")
        kept += layer_outputs(blank_generator(teacher, config, config.engine), latents, targets)
    return config.batch_size * (values * BYTES_PER_CANVAS_VALUE + kept * BYTES_PER_ACTIVATION)


def canvas_bytes(teacher: Teacher, config: SynthesisConfig) -> int:
    """Size of a canvas as it is kept."""
    return teacher.input_shape[0] * math.prod(config.canvas_size(teacher.input_shape))


def learned_bytes(teacher: Teacher, config: SynthesisConfig) -> int:
    """Size of the snapshots that the engine learns before the shards; 0 of engines that do not."""
    if not isinstance(config.engine, GeneratorSpec):
        return 0
    tensors = kept_tensors(blank_generator(teacher, config, config.engine), adapted=config.engine.adaptation > 0)
    return config.engine.snapshots * sum(tensor.nbytes for tensor in tensors.values())


def blank_generator(teacher: Teacher, config: SynthesisConfig, engine: GeneratorSpec) -> ImageGenerator:
    """The generator's network without memory of its own, to count with."""
    shape = (teacher.input_shape[0], *config.canvas_size(teacher.input_shape))
    with torch.device("meta"):
        return ImageGenerator(shape, teacher.num_classes, engine.latent, engine.width).eval()


def activations(teacher: Teacher) -> int:
    """Values that convolutions and BatchNorm layers give for one image of the teacher's input shape."""
    return module_activations(teacher.module, teacher.input_shape)


def module_activations(network: nn.Module, input_shape: tuple[int, int, int]) -> int:
    """Values that a network's convolutions and BatchNorm layers give for one image (channels, height, width)."""
    return layer_outputs(network, torch.zeros(1, *input_shape, device=next(network.parameters()).device))


@torch.no_grad()
def layer_outputs(network: nn.Module, *inputs: Tensor) -> int:
    """Values that a network's convolutions and BatchNorm layers give in a call with these inputs."""
    counts: list[int] = []

    def count(_layer: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
        counts.append(output.numel())

    layers = [module for module in network.modules() if isinstance(module, (nn.Conv2d, nn.BatchNorm2d))]
    handles = [layer.register_forward_hook(count) for layer in layers]
    try:
        network(*inputs)
    finally:
        for handle in handles:
            handle.remove()
    return sum(counts)


def total_memory(device: torch.device) -> int:
    """All memory of a device, in bytes; for a CPU, no more than the process's control group may have."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[1]
    physical = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit = CGROUP_LIMIT.read_text().strip() if CGROUP_LIMIT.exists() else "max"
    return physical if limit == "max" else min(physical, int(limit))


def _gib(size: int) -> str:
    return f"{size / 2**30:,.1f} GiB"
