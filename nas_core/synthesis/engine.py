"""What every synthesis engine offers: it turns the targets of a shard-round into images.

All engines share labels and `ShardImages`; those that make images share losses and regional update, and differ in what
they optimise.
"""

import abc
from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from nas_core.checkpoint import Checkpoint, Progress, no_progress
from nas_core.synthesis.objective import Objective
from nas_core.synthesis.shard import ShardImages


class SynthesisEngine(abc.ABC):
    """A way to make images from a teacher.

    Args of every registered engine (beside its own spec): `teacher` (on the device where the work happens),
    `canvas_size` (height, width; at least the teacher's input) and `labels` (how soft labels are made).
    """

    objective: Objective

    @abc.abstractmethod
    def check(self) -> None:
        """Raise InputError, naming the field to change, if the settings do not fit teacher or canvas."""

    def learn(
        self,
        classes: Int64[Tensor, " chosen"],
        batch_size: int,
        seed: int,
        checkpoint: Checkpoint,
        progress: Progress = no_progress,
    ) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
        """Learn once, before all shards, what they all start from; for engines whose spec says `learns`.

        Args:
            classes: Indices of the classes to make images of.
            batch_size: Images per shard.
            seed: The run's seed.
            checkpoint: Where an interrupted attempt left off, and where to save.
            progress: Called after every step.

        Returns:
            Tensors by name, on the CPU, for `load`; and records like those of `ShardImages`.
        """
        del classes, batch_size, seed, checkpoint, progress
        return {}, []

    def load(self, learned: Mapping[str, Tensor]) -> None:
        """Take up what `learn` returned; `make` needs it."""
        assert not learned

    @abc.abstractmethod
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
        """Make one batch of images; the same arguments give the same bytes, interrupted or not.

        Args:
            targets: Class probabilities of each image.
            generator: CPU generator of this shard-round: all draws.
            target_temperature: Temperature of `targets`, at which the teacher's predictions are compared with them.
                The class loss is multiplied by its square (Hinton et al., arXiv:1503.02531, section 2).
            start: Canvases to start from, for the pixel engine; none: it starts from Gaussian noise. For imported
                images, the canvases themselves. The generator takes none.
            checkpoint: Where an interrupted attempt left off, and where to save.
            progress: Called after every step.
        """
