"""The pixel engine: optimise the pixels of a batch of canvases against the teacher."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn.functional import avg_pool2d

from nas_core.checkpoint import Progress, no_progress
from nas_core.precision import Precision
from nas_core.schedule import warmup_cosine
from nas_core.synthesis.config import LabelCalibration, LossWeights, PixelStage
from nas_core.synthesis.labels import soft_predictions
from nas_core.synthesis.losses import (
    mean_image_norm,
    soft_cross_entropy,
    statistics_distance,
    total_variation_l1,
    total_variation_l2,
)
from nas_core.synthesis.regional import cut, random_window, resized
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
        labels: How the images' soft labels are made.
        stages: Resolutions and steps, each with its own optimiser and schedule.
        min_scale: Smallest area of a window as a share of the teacher's input, in (0, 1]; see `random_window`.
        learning_rate: Peak learning rate of Adam, in normalised pixel units.
        warmup: Steps of linear warm-up per stage, < the steps of any stage.
        betas: Adam's decay rates.
        losses: Weights of the loss terms.
        precision: Arithmetic of the teacher; canvas, losses and Adam are float32 in any case.

    Source:
        Data-Free NAS, arXiv:2112.02086; DeepInversion, arXiv:1912.08795.
    """

    teacher: Teacher
    canvas_size: tuple[int, int]
    labels: LabelCalibration
    stages: tuple[PixelStage, ...]
    min_scale: float
    learning_rate: float
    warmup: int
    betas: tuple[float, float]
    losses: LossWeights
    precision: Precision = "auto"

    def make(
        self,
        targets: Float[Tensor, "batch classes"],
        generator: torch.Generator,
        *,
        target_temperature: float = 1.0,
        start: UInt8[Tensor, "batch channels canvas_height canvas_width"] | None = None,
        progress: Progress = no_progress,
    ) -> ShardImages:
        """Optimise one batch of canvases towards `targets`.

        Args:
            targets: Class probabilities of each image.
            generator: CPU generator of this shard-round: initial noise, windows and flips.
            target_temperature: Temperature of `targets`, at which the teacher's predictions are compared with them.
                The class loss is multiplied by its square (Hinton et al., arXiv:1503.02531, section 2).
            start: Canvases to start from; none: Gaussian noise.
            progress: Called after every step.

        Returns:
            The canvases with the teacher's predictions. They are the last iterate, not the one of lowest loss: losses
            of different windows and resolutions cannot be compared.
        """
        canvas = self._first_canvas(targets, generator, start).requires_grad_()
        observed = ObservedTeacher(self.teacher, self.precision)
        black, white = self.teacher.valid_range(canvas.device)
        device_targets = targets.to(canvas.device)
        optimiser = self._optimiser(canvas)
        logits = torch.empty(0)
        records: list[tuple[int, dict[str, Tensor]]] = []
        steps = sum(stage.iterations for stage in self.stages)
        for step, (stage, position) in enumerate(self._schedule()):
            if position == 0:
                optimiser = self._optimiser(canvas)
            for group in optimiser.param_groups:
                group["lr"] = self.learning_rate * warmup_cosine(position, stage.iterations, self.warmup)
            view = self._view(canvas, stage.divisor, generator)
            logits, statistics = observed(view)
            terms = self._terms(view, logits, device_targets, target_temperature, statistics)
            (canvas.grad,) = torch.autograd.grad(terms["total"], canvas)
            optimiser.step()
            with torch.no_grad():
                canvas.clamp_(black, white)
            if step % max(1, steps // RECORDS_PER_SHARD) == 0 or step == steps - 1:
                records.append((step, {name: value.detach() for name, value in terms.items()}))
            # No figures: reading one would make the host wait for the device at every step.
            progress(step + 1, steps, {})
        logits = logits.detach()
        return ShardImages(
            canvases=self.teacher.to_bytes(canvas.detach()).cpu(),
            targets=targets,
            soft_labels=self._soft_labels(canvas.detach(), logits, generator).cpu(),
            losses=soft_cross_entropy(logits / target_temperature, device_targets).cpu(),
            history=[{"step": step} | {k: float(v) for k, v in terms.items()} for step, terms in records],
        )

    def _first_canvas(self, targets: Tensor, generator: torch.Generator, start: Tensor | None) -> Tensor:
        if start is not None:
            return self.teacher.normalise(start.to(self.teacher.device))
        shape = (len(targets), self.teacher.input_shape[0], *self.canvas_size)
        return torch.randn(shape, generator=generator).to(self.teacher.device)

    def _optimiser(self, canvas: Tensor) -> torch.optim.Adam:
        return torch.optim.Adam([canvas], lr=self.learning_rate, betas=self.betas, fused=True)

    def _schedule(self) -> Iterator[tuple[PixelStage, int]]:
        """The stage of every step, with the number of the step in it."""
        for stage in self.stages:
            for position in range(stage.iterations):
                yield stage, position

    def _view(self, canvas: Tensor, divisor: int, generator: torch.Generator) -> Tensor:
        """One random window of the canvas at a stage's resolution, as the teacher sees it."""
        shrunk = avg_pool2d(canvas, divisor) if divisor > 1 else canvas
        canvas_height, canvas_width = shrunk.shape[2:]
        height, width = (side // divisor for side in self.teacher.input_shape[1:])
        window = random_window(
            (canvas_height, canvas_width),
            (height, width),
            may_flip=self.teacher.flip_invariant,
            generator=generator,
            min_scale=self.min_scale,
        )
        return resized(cut(shrunk, window), (height, width))

    @torch.no_grad()
    def _soft_labels(self, canvas: Tensor, last_logits: Tensor, generator: torch.Generator) -> Tensor:
        """The next round's targets; see `LabelCalibration`."""
        temperature, windows = self.labels.temperature, self.labels.windows
        if windows == 1:
            return soft_predictions(last_logits, temperature)
        logits = [self.teacher.logits(self._view(canvas, 1, generator)) for _ in range(windows)]
        return torch.stack([soft_predictions(window, temperature) for window in logits]).mean(dim=0)

    def _terms(
        self, view: Tensor, logits: Tensor, targets: Tensor, temperature: float, statistics: list[LayerStatistics]
    ) -> dict[str, Tensor]:
        """The weighted loss as "total" and its unweighted terms."""
        terms = {
            "classification": soft_cross_entropy(logits / temperature, targets).mean(),
            "batch_norm": self._batch_norm(statistics, view),
            "total_variation": total_variation_l2(view),
            "total_variation_l1": total_variation_l1(view),
            "l2": mean_image_norm(view),
        }
        weights = self.losses.model_dump()
        # The gradient of a softmax at a temperature shrinks with its square; without this the priors win.
        weights["classification"] *= temperature**2
        # Terms of weight zero are recorded, but no time is spent on their gradient.
        total = torch.stack([weights[name] * value for name, value in terms.items() if weights[name]]).sum()
        return {"total": total} | terms

    def _batch_norm(self, statistics: list[LayerStatistics], view: Tensor) -> Tensor:
        """Sum of the layers' distances, the first one's multiplied."""
        if not statistics:
            return view.new_zeros(())
        distances = [statistics_distance(s.batch_mean, s.batch_var, s.running_mean, s.running_var) for s in statistics]
        distances[0] = distances[0] * self.losses.first_batch_norm
        return torch.stack(distances).sum()
