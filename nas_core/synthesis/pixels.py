"""The pixel engine: optimise the pixels of a batch of canvases against the teacher."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from nas_core.checkpoint import Progress, no_progress
from nas_core.schedule import warmup_cosine
from nas_core.synthesis.config import LossWeights
from nas_core.synthesis.labels import soft_predictions
from nas_core.synthesis.losses import mean_image_norm, soft_cross_entropy, statistics_distance, total_variation_l2
from nas_core.synthesis.regional import cut, random_window
from nas_core.synthesis.shard import ShardImages
from nas_core.synthesis.statistics import LayerStatistics, ObservedTeacher
from nas_core.teachers.teacher import Teacher

RECORDS_PER_SHARD = 50


@dataclass(frozen=True)
class PixelSynthesis:
    """Image synthesis by gradient descent on pixels.

    Attributes:
        teacher: The frozen teacher, on the device where the work happens.
        canvas_size: Height and width of a canvas, at least the teacher's input.
        label_temperature: Temperature of the soft predictions handed to the next round.
        iterations: Optimisation steps.
        learning_rate: Peak learning rate of Adam, in normalised pixel units.
        warmup: Steps of linear warm-up, < iterations.
        betas: Adam's decay rates.
        losses: Weights of the loss terms.

    Source:
        Data-Free NAS, arXiv:2112.02086; DeepInversion, arXiv:1912.08795.
    """

    teacher: Teacher
    canvas_size: tuple[int, int]
    label_temperature: float
    iterations: int
    learning_rate: float
    warmup: int
    betas: tuple[float, float]
    losses: LossWeights

    def make(
        self,
        targets: Float[Tensor, "batch classes"],
        generator: torch.Generator,
        progress: Progress = no_progress,
    ) -> ShardImages:
        """Optimise one batch of canvases, from noise, towards `targets`.

        Args:
            targets: Class probabilities of each image.
            generator: CPU generator of this shard-round: initial noise, windows and flips.
            progress: Called after every step.

        Returns:
            The canvases with the teacher's predictions on the last window that was used. It is the last iterate,
            not the one of lowest loss: losses of different windows cannot be compared.
        """
        device = self.teacher.device
        channels = self.teacher.input_shape[0]
        noise = torch.randn(len(targets), channels, *self.canvas_size, generator=generator)
        canvas = noise.to(device).requires_grad_()
        observed = ObservedTeacher(self.teacher)
        black, white = self.teacher.valid_range(device)
        optimiser = torch.optim.Adam([canvas], lr=self.learning_rate, betas=self.betas)
        device_targets = targets.to(device)
        logits = torch.empty(0)
        records: list[tuple[int, dict[str, Tensor]]] = []
        every = max(1, self.iterations // RECORDS_PER_SHARD)
        for step, window in enumerate(self._windows(generator)):
            for group in optimiser.param_groups:
                group["lr"] = self.learning_rate * warmup_cosine(step, self.iterations, self.warmup)
            view = cut(canvas, window)
            logits, statistics = observed(view)
            terms = self._terms(view, logits, device_targets, statistics)
            (canvas.grad,) = torch.autograd.grad(terms["total"], canvas)
            optimiser.step()
            with torch.no_grad():
                canvas.clamp_(black, white)
            if step % every == 0 or step == self.iterations - 1:
                records.append((step, {name: value.detach() for name, value in terms.items()}))
            # No figures: reading one would make the host wait for the device at every step.
            progress(step + 1, self.iterations, {})
        logits = logits.detach()
        return ShardImages(
            canvases=self.teacher.to_bytes(canvas.detach()).cpu(),
            targets=targets,
            soft_labels=soft_predictions(logits, self.label_temperature).cpu(),
            losses=soft_cross_entropy(logits, device_targets).cpu(),
            history=[{"step": step} | {k: float(v) for k, v in terms.items()} for step, terms in records],
        )

    def _windows(self, generator: torch.Generator) -> Iterator:
        """One random window per step."""
        size = self.teacher.input_shape[1:]
        for _ in range(self.iterations):
            yield random_window(self.canvas_size, size, may_flip=self.teacher.flip_invariant, generator=generator)

    def _terms(
        self, view: Tensor, logits: Tensor, targets: Tensor, statistics: list[LayerStatistics]
    ) -> dict[str, Tensor]:
        """The weighted loss as "total" and its unweighted terms."""
        weights = self.losses
        terms = {
            "classification": soft_cross_entropy(logits, targets).mean(),
            "batch_norm": self._batch_norm(statistics, view),
            "total_variation": total_variation_l2(view),
            "l2": mean_image_norm(view),
        }
        total = torch.stack([getattr(weights, name) * value for name, value in terms.items()]).sum()
        return {"total": total} | terms

    def _batch_norm(self, statistics: list[LayerStatistics], view: Tensor) -> Tensor:
        """Sum of the layers' distances, the first one's multiplied."""
        if not statistics:
            return view.new_zeros(())
        distances = [statistics_distance(s.batch_mean, s.batch_var, s.running_mean, s.running_var) for s in statistics]
        distances[0] = distances[0] * self.losses.first_batch_norm
        return torch.stack(distances).sum()
