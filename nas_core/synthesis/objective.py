"""The synthesis loss: what a teacher says of one random window of a batch of canvases.

Both engines go down this loss; one moves pixels, the other the weights of a generator.
"""

import functools
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from nas_core.compilation import check_compiler, compiled
from nas_core.errors import InputError
from nas_core.settings.precision import Precision
from nas_core.settings.synthesis import LabelCalibration, LossWeights
from nas_core.synthesis.labels import soft_predictions
from nas_core.synthesis.losses import (
    mean_image_norm,
    soft_cross_entropy,
    statistics_distance,
    total_variation_l1,
    total_variation_l2,
)
from nas_core.synthesis.regional import cut, random_window, resized
from nas_core.synthesis.statistics import LayerStatistics, ObservedTeacher
from nas_core.teachers.teacher import Teacher


class StatisticsMemory:
    """BatchNorm statistics of the batches so far: one batch need not look like the whole training set by itself.

    Args:
        momentum: Share of the past in a blend, in [0, 1); 0 remembers nothing.
        past: (mean, variance) per BatchNorm call, as `past` gave them; none: the first batch makes the past.

    Attributes:
        past: What is remembered, detached.

    Source:
        The exponential mean of FastDFKD's feature hooks (arXiv:2112.06253, public code: 0.9).
    """

    def __init__(self, momentum: float, past: Sequence[tuple[Tensor, Tensor]] = ()) -> None:
        self.momentum = momentum
        self.past = list(past)
        self._latest: list[tuple[Tensor, Tensor]] = []

    def blended(self, statistics: Sequence[LayerStatistics]) -> list[LayerStatistics]:
        """Momentum x past + (1 - momentum) x batch, with the batch's graph; the batch alone while there is no past."""
        if not self.past:
            return list(statistics)
        share = 1 - self.momentum
        return [
            replace(
                now,
                batch_mean=torch.lerp(mean, now.batch_mean, share),
                batch_var=torch.lerp(var, now.batch_var, share),
            )
            for now, (mean, var) in zip(statistics, self.past, strict=True)
        ]

    def offer(self, latest: list[tuple[Tensor, Tensor]]) -> None:
        """Hand over the detached (mean, variance) of the latest blends, for `remember`."""
        self._latest = latest

    def remember(self) -> None:
        """Make the latest blend the past."""
        self.past = self._latest


class Objective:
    """How a teacher judges batches of canvases through random windows.

    Args:
        teacher: The frozen teacher, on the device where the work happens.
        losses: Weights of the loss terms.
        min_scale: Smallest area of a window as a share of the teacher's input, in (0, 1]; see `random_window`.
        precision: Arithmetic of the teacher; images and losses are float32 in any case.
        compile: Whether teacher and losses run as compiled code.
        section: Where these settings are in the config, for messages.

    Source:
        Data-Free NAS, arXiv:2112.02086; DeepInversion, arXiv:1912.08795.
    """

    def __init__(
        self,
        teacher: Teacher,
        losses: LossWeights,
        *,
        min_scale: float = 1.0,
        precision: Precision = "auto",
        compile: bool = False,  # noqa: A002 - the config's name
        section: str = "synthesis.engine",
    ) -> None:
        self.teacher, self.losses, self.min_scale, self._section = teacher, losses, min_scale, section
        self._precision: Precision = precision
        self._weights = losses.model_dump()
        self._compile = compile
        self._judged = compiled(self._judge, teacher.device) if compile else self._judge

    @functools.cached_property
    def _observed(self) -> ObservedTeacher:
        """Copied at the first judgement: checks before a run need no copy of the teacher."""
        return ObservedTeacher(self.teacher, self._precision, compile=self._compile)

    def check(self) -> None:
        """Raise InputError if the machine cannot compile, or the teacher has no statistics to match."""
        if self._compile:
            check_compiler(self.teacher.device, f"{self._section}.compile")
        wanted = [name for name in ("batch_norm", "relative_batch_norm") if self._weights[name] > 0]
        if wanted and not self.teacher.batch_norms:
            raise InputError(
                "synthesis matches the running statistics of BatchNorm layers, of which the teacher has none (its norm "
                f"layers: {_norm_layers(self.teacher)}): use another teacher, or set "
                f"{self._section}.losses.{wanted[0]} to 0 for images from the class loss and priors alone"
            )

    def view(
        self,
        canvas: Float[Tensor, "batch channels canvas_height canvas_width"],
        draws: torch.Generator,
        divisor: int = 1,
    ) -> Float[Tensor, "batch channels height width"]:
        """One random window of the canvases, the same for all, as the teacher sees it.

        Args:
            canvas: Normalised images, at least as large as the teacher's input.
            draws: Source of offset and flip.
            divisor: The canvas is averaged over squares of this many pixels a side first.
        """
        shrunk = avg_pool2d(canvas, divisor) if divisor > 1 else canvas
        canvas_height, canvas_width = shrunk.shape[2:]
        height, width = (side // divisor for side in self.teacher.input_shape[1:])
        window = random_window(
            (canvas_height, canvas_width),
            (height, width),
            may_flip=self.teacher.flip_invariant,
            generator=draws,
            min_scale=self.min_scale,
        )
        return resized(cut(shrunk, window), (height, width))

    def __call__(
        self,
        view: Float[Tensor, "batch channels height width"],
        targets: Float[Tensor, "batch classes"],
        temperature: float,
        memory: StatisticsMemory | None = None,
    ) -> tuple[dict[str, Tensor], Float[Tensor, "batch classes"]]:
        """Judge a view.

        Args:
            view: What `view` returned.
            targets: Class probabilities of each image.
            temperature: Temperature of the targets; the class loss is multiplied by its square.
            memory: Statistics of earlier batches, which this one complements; none: the batch stands for all.

        Returns:
            The weighted loss as "total" beside its unweighted terms, with a graph to the view, and the logits.
        """
        observed = self._observed  # made outside of compiled code
        if self._compile:
            # One layout, whether or not the window was mirrored: each would be compiled for itself.
            view = view.contiguous(memory_format=torch.channels_last)
        terms, logits, latest = self._judged(observed, view, targets, temperature, memory)
        if self._compile:
            # The next call of a CUDA graph writes into these again.
            terms, logits = {name: value.clone() for name, value in terms.items()}, logits.clone()
            latest = [(mean.clone(), var.clone()) for mean, var in latest]
        if memory is not None:
            memory.offer(latest)
        return terms, logits

    def _judge(
        self,
        observed: ObservedTeacher,
        view: Tensor,
        targets: Tensor,
        temperature: float,
        memory: StatisticsMemory | None,
    ) -> tuple[dict[str, Tensor], Tensor, list[tuple[Tensor, Tensor]]]:
        """Terms, logits, and the statistics that the memory may take up."""
        logits, statistics = observed(view)
        if memory is not None:
            statistics = memory.blended(statistics)
        latest = [(layer.batch_mean.detach(), layer.batch_var.detach()) for layer in statistics] if memory else []
        distance, size = self._batch_norm(statistics, view)
        terms = {
            "classification": soft_cross_entropy(logits / temperature, targets).mean(),
            "batch_norm": distance,
            "relative_batch_norm": distance / size,
            "total_variation": total_variation_l2(view),
            "total_variation_l1": total_variation_l1(view),
            "l2": mean_image_norm(view),
        }
        weights = dict(self._weights)
        # The gradient of a softmax at a temperature shrinks with its square; without this the priors win.
        weights["classification"] *= temperature**2
        # Terms of weight zero are recorded, but no time is spent on their gradient.
        total = torch.stack([weights[name] * value for name, value in terms.items() if weights[name]]).sum()
        return {"total": total} | terms, logits, latest

    @torch.no_grad()
    def soft_labels(
        self,
        canvas: Float[Tensor, "batch channels canvas_height canvas_width"],
        last_logits: Float[Tensor, "batch classes"],
        labels: LabelCalibration,
        draws: torch.Generator,
    ) -> Float[Tensor, "batch classes"]:
        """The next round's targets, rows summing to 1; see `LabelCalibration`.

        Args:
            canvas: The finished images, normalised.
            last_logits: What the teacher said of the last window of which the loss was taken.
            labels: How to make labels of them.
            draws: Source of new windows.
        """
        if labels.windows == 1:
            return soft_predictions(last_logits, labels.temperature)
        logits = [self.teacher.logits(self.view(canvas, draws)) for _ in range(labels.windows)]
        return torch.stack([soft_predictions(window, labels.temperature) for window in logits]).mean(dim=0)

    def _batch_norm(self, statistics: Sequence[LayerStatistics], view: Tensor) -> tuple[Tensor, Tensor]:
        """Sum of the layers' distances, the first one's multiplied, and of their sizes; 0 and 1 without layers."""
        if not statistics:
            return view.new_zeros(()), view.new_ones(())
        distances = [statistics_distance(s.batch_mean, s.batch_var, s.running_mean, s.running_var) for s in statistics]
        distances[0] = distances[0] * self.losses.first_batch_norm
        return torch.stack(distances).sum(), torch.stack([s.size for s in statistics]).sum()


def _norm_layers(teacher: Teacher) -> str:
    """The teacher's normalisation layers by type and number, such as "12 LayerNorm"."""
    found = Counter(
        type(module).__name__ + (" without running statistics" if isinstance(module, nn.BatchNorm2d) else "")
        for module in teacher.module.modules()
        if "Norm" in type(module).__name__
    )
    return ", ".join(f"{count} {name}" for name, count in found.items()) or "none, or folded into the convolutions"
