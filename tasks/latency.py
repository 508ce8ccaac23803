"""Latency on this machine: of the student and of its teacher, and of the parts of a search space."""

from pathlib import Path

import torch
from torch import nn

from nas_core.config import RunConfig
from nas_core.device import resolve_device
from nas_core.errors import InputError
from nas_core.ops.latency import measure_parts, median_milliseconds, processor_name
from nas_core.strategies import latency_budget
from nas_core.teachers import teachers
from storage.files import digest_of_file, digest_of_json, write_bytes, write_json
from storage.manifests import Manifest
from tasks.building import build_space
from tasks.retrain import load_model
from tasks.run import Run
from tasks.stage import Product, round_figure

WARM_UP, REPETITIONS = 5, 50
LONGEST_SECONDS = 10.0


def measure_latency(run: Run, _piece: str, _key: str, model: Manifest) -> Product:
    """Time a forward pass of teacher and student, of one image and of a batch, in float32 and channels-last.

    Times differ from run to run, so the digest is of what was timed and not of the times: nothing that follows is made
    anew because a machine was slower.
    """
    teacher, batch = run.teacher(), run.config.evaluation.latency_batch
    device = teacher.device
    student = load_model(run.layout.root)[0].to(device)
    student.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def timed(network: nn.Module) -> dict[str, float | None]:
        times = {
            name: median_milliseconds(
                network, teacher.input_shape, device, size, WARM_UP, REPETITIONS, seconds=LONGEST_SECONDS
            )
            for name, size in (("latency_ms", 1), ("batch_latency_ms", batch))
        }
        return {name: round_figure(value) for name, value in times.items()}

    figures = {
        "teacher": timed(teacher.module),
        "student": timed(student),
        "machine": {
            "batch_size": batch,
            "device": str(device),
            "processor": processor_name(device),
            "threads": torch.get_num_threads(),
        },
    }
    write_json(run.layout.latency, figures)
    return Product(digest=digest_of_json([model.digest, batch]), files=[run.layout.latency], figures=figures["student"])


def write_latency_table(config: RunConfig, path: Path, device: str, batch_size: int, repetitions: int) -> str:
    """Time every part of the config's space and write the table with its provenance.

    Args:
        config: Names space and teacher, whose images and classes count.
        path: File to write; overwritten.
        device: Where the networks are to run, such as cpu.
        batch_size: Images per forward pass.
        repetitions: Passes of which the median is taken.

    Returns:
        The range of latencies of the space, in words.

    Raises:
        InputError: If the config, the teacher or the device is wrong, or the file's folder does not exist.
    """
    if not path.absolute().parent.is_dir():
        raise InputError(f"there is no folder {path.parent} to write {path.name} to; make it first")
    space = build_space(config.search.space, teachers.build(config.teacher))
    table = measure_parts(space, resolve_device(device), batch_size=batch_size, repetitions=repetitions)
    write_bytes(path, table.to_json().encode() + b"\n")
    budget = latency_budget(table)
    smallest, dearest = map(budget.written, space.cost_range(budget.table(space)))
    return (
        f"{path}: {len(table.entries)} parts of {space.name} on {table.provenance['processor']}; architectures take "
        f"{smallest} to {dearest} ms for {batch_size} image{'s' * (batch_size > 1)}"
    )


def keep_latency_table(run: Run, _piece: str, _key: str) -> Product:
    """Copy the latency table into the run, whose search then depends on no other file."""
    table = run.config.search.latency_table
    assert table is not None
    path = run.layout.latency_table
    write_bytes(path, table.read_bytes())
    return Product(digest=digest_of_file(path), files=[path])
