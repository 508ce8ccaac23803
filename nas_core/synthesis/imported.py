"""The engine that makes no images: it takes those of a folder as they are, and has the teacher label them."""

from pathlib import Path

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from nas_core.checkpoint import Checkpoint, Progress, no_progress
from nas_core.settings.synthesis import ImportedSpec, LabelCalibration, LossWeights, engines
from nas_core.synthesis.engine import SynthesisEngine
from nas_core.synthesis.losses import soft_cross_entropy
from nas_core.synthesis.objective import Objective
from nas_core.synthesis.shard import ShardImages
from nas_core.teachers.teacher import Teacher


@engines.register(ImportedSpec)
class ImportedImages(SynthesisEngine):
    """Images that are there already.

    Args:
        teacher: On the device where the work happens.
        canvas_size: Height and width of a canvas, at least the teacher's input.
        labels: How the images' soft labels are made.
        path: Where the images are from; they are read elsewhere, and handed to `make`.
        listing: Digest of what is there.
    """

    def __init__(
        self, teacher: Teacher, *, canvas_size: tuple[int, int], labels: LabelCalibration, path: Path, listing: str
    ) -> None:
        del canvas_size, path, listing
        self.objective = Objective(teacher, LossWeights(batch_norm=0.0))
        self.teacher, self.labels = teacher, labels

    def check(self) -> None:
        """Any teacher can label images."""

    def make(
        self,
        targets: Float[Tensor, "batch classes"],
        generator: torch.Generator,
        *,
        target_temperature: float = 1.0,
        start: UInt8[Tensor, "batch channels canvas_height canvas_width"] | None = None,
        checkpoint: Checkpoint | None = None,
        progress: Progress = no_progress,
    ) -> ShardImages:
        """Label the canvases of `start`, which stay as they are; see `SynthesisEngine.make`.

        Raises:
            ValueError: Without `start`.
        """
        del checkpoint, progress  # It takes a moment.
        if start is None:
            raise ValueError("imported images have to be given as `start`")
        device = self.teacher.device
        canvas = self.teacher.normalise(start.to(device))
        logits = self.teacher.logits(self.objective.view(canvas, generator))
        return ShardImages(
            canvases=start,
            targets=targets,
            soft_labels=self.objective.soft_labels(canvas, logits, self.labels, generator).cpu(),
            losses=soft_cross_entropy(logits / target_temperature, targets.to(device)).cpu(),
            history=[],
        )
