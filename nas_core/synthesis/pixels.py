"""The pixel engine: optimise the pixels of a batch of canvases against the teacher."""

import copy
from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from nas_core.checkpoint import Checkpoint, Progress, no_progress
from nas_core.errors import InputError
from nas_core.schedule import warmup_cosine
from nas_core.settings.precision import Precision
from nas_core.settings.synthesis import LabelCalibration, LossWeights, PixelSpec, PixelStage, engines
from nas_core.synthesis.engine import SynthesisEngine
from nas_core.synthesis.losses import soft_cross_entropy
from nas_core.synthesis.objective import Objective
from nas_core.synthesis.shard import RECORDS_PER_SHARD, ShardImages, history, refuse_divergence
from nas_core.teachers.teacher import REFUSALS, Teacher, reason_of


@engines.register(PixelSpec)
class PixelSynthesis(SynthesisEngine):
    """Image synthesis by gradient descent on pixels.

    Args:
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
        compile: Whether teacher and losses run as compiled code.
        section: Where these settings are in the config, for messages.

    Source:
        Data-Free NAS, arXiv:2112.02086; DeepInversion, arXiv:1912.08795.
    """

    def __init__(
        self,
        teacher: Teacher,
        *,
        canvas_size: tuple[int, int],
        labels: LabelCalibration,
        stages: tuple[PixelStage, ...],
        min_scale: float,
        learning_rate: float,
        warmup: int,
        betas: tuple[float, float],
        losses: LossWeights,
        precision: Precision = "auto",
        compile: bool = False,  # noqa: A002 - the config's name
        section: str = "synthesis.engine",
    ) -> None:
        self.objective = Objective(
            teacher, losses, min_scale=min_scale, precision=precision, compile=compile, section=section
        )
        self.teacher, self.canvas_size, self.labels, self._section = teacher, canvas_size, labels, section
        self.stages, self.warmup = stages, warmup
        self.learning_rate, self.betas = learning_rate, betas

    def check(self) -> None:
        """Check that every stage's resolution exists, that the teacher can see it, and the loss."""
        self.objective.check()
        for divisor in sorted({stage.divisor for stage in self.stages} - {1}):
            self._check_divisor(divisor)

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
        """Optimise one batch of canvases towards `targets`; see `SynthesisEngine.make`.

        The canvases are the last iterate, not the one of lowest loss: losses of different windows and resolutions
        cannot be compared.
        """
        checkpoint = checkpoint or Checkpoint()
        first, canvas, saved_optimiser, records = self._begin(targets, generator, start, checkpoint.state)
        optimiser = self._optimiser(canvas, saved_optimiser)
        black, white = self.teacher.valid_range(canvas.device)
        device_targets = targets.to(canvas.device)
        logits = torch.empty(0)
        schedule = list(self._schedule())
        every = max(1, len(schedule) // RECORDS_PER_SHARD)
        for step, (stage, position) in enumerate(schedule[first:], start=first):
            if position == 0:
                optimiser = self._optimiser(canvas)
            for group in optimiser.param_groups:
                group["lr"] = self.learning_rate * warmup_cosine(position, stage.iterations, self.warmup)
            view = self.objective.view(canvas, generator, stage.divisor)
            terms, logits = self.objective(view, device_targets, target_temperature)
            if step % every == 0:
                refuse_divergence(terms["total"])
            (gradient,) = torch.autograd.grad(terms["total"], canvas)
            # The fused Adam walks through memory, so that the gradient must lie as the canvas does.
            canvas.grad = gradient.contiguous()
            optimiser.step()
            with torch.no_grad():
                canvas.clamp_(black, white)
            if step % every == 0 or step == len(schedule) - 1:
                records.append((step, {name: value.detach() for name, value in terms.items()}))
            if step < len(schedule) - 1:
                checkpoint.offer(lambda: _state(step + 1, canvas, optimiser, generator, records))  # noqa: B023 - called at once
            # No figures: reading one would make the host wait for the device at every step.
            progress(step + 1, len(schedule), {})
        refuse_divergence(canvas.detach())  # before bytes hide it
        logits = logits.detach()
        return ShardImages(
            canvases=self.teacher.to_bytes(canvas.detach()).cpu(),
            targets=targets,
            soft_labels=self.objective.soft_labels(canvas.detach(), logits, self.labels, generator).cpu(),
            losses=soft_cross_entropy(logits / target_temperature, device_targets).cpu(),
            history=history(records),
        )

    def _begin(
        self, targets: Tensor, generator: torch.Generator, start: Tensor | None, saved: dict[str, Any] | None
    ) -> tuple[int, Tensor, dict[str, Any] | None, list[tuple[int, dict[str, Tensor]]]]:
        """First step, canvas, optimiser state and records, from a checkpoint or afresh."""
        if saved is not None:
            generator.set_state(saved["generator"])
            canvas = saved["canvas"].to(self.teacher.device).clone().requires_grad_()
            return saved["step"], canvas, saved["optimiser"], list(saved["records"])
        return 0, self._first_canvas(targets, generator, start).requires_grad_(), None, []

    def _first_canvas(self, targets: Tensor, generator: torch.Generator, start: Tensor | None) -> Tensor:
        if start is not None:
            return self.teacher.normalise(start.to(self.teacher.device)).contiguous()
        shape = (len(targets), self.teacher.input_shape[0], *self.canvas_size)
        return torch.randn(shape, generator=generator).to(self.teacher.device)

    def _optimiser(self, canvas: Tensor, state: dict[str, Any] | None = None) -> torch.optim.Adam:
        optimiser = torch.optim.Adam([canvas], lr=self.learning_rate, betas=self.betas, fused=True)
        if state is not None:
            optimiser.load_state_dict(state)
        return optimiser

    def _schedule(self) -> Iterator[tuple[PixelStage, int]]:
        """The stage of every step, with the number of the step in it."""
        for stage in self.stages:
            for position in range(stage.iterations):
                yield stage, position

    def _check_divisor(self, divisor: int) -> None:
        window, canvas = self.teacher.input_shape[1:], self.canvas_size
        if any(side % divisor for side in (*canvas, *window)):
            raise InputError(
                f"{self._section}.stages has divisor {divisor}, which does not divide the canvas "
                f"{canvas[0]}x{canvas[1]} and the teacher's input {window[0]}x{window[1]}: choose another divisor or "
                "synthesis.canvas"
            )
        size = [side // divisor for side in window]
        if min(size) < 2:
            raise InputError(
                f"{self._section}.stages has divisor {divisor}, which leaves {size[0]}x{size[1]} pixels of the "
                "teacher's input, and total variation needs 2x2: choose a smaller divisor"
            )
        try:
            self.teacher.logits(torch.zeros(2, self.teacher.input_shape[0], *size, device=self.teacher.device))
        except REFUSALS as error:
            raise InputError(
                f"{self._section}.stages has divisor {divisor}, but the teacher cannot take images of "
                f"{size[0]}x{size[1]} ({reason_of(error)}): leave out that stage"
            ) from error


def _state(
    step: int,
    canvas: Tensor,
    optimiser: torch.optim.Adam,
    generator: torch.Generator,
    records: list[tuple[int, dict[str, Tensor]]],
) -> dict[str, Any]:
    """What continues a shard at `step`."""
    return {
        "step": step,
        "canvas": canvas.detach().clone(),
        "optimiser": copy.deepcopy(optimiser.state_dict()),
        "generator": generator.get_state(),
        "records": list(records),
    }
