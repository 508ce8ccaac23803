"""Latency of the student and of its teacher on this machine."""

import torch
from torch import nn

from nas_core.ops.latency import median_milliseconds, processor_name
from storage.files import digest_of_json, write_json
from storage.manifests import Manifest
from tasks.retrain import load_model
from tasks.run import Run
from tasks.stage import Product, round_figure, stage

WARM_UP, REPETITIONS = 5, 50
LONGEST_SECONDS = 10.0


@stage("latency", version=1, sections=("evaluation.latency_batch",))
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
