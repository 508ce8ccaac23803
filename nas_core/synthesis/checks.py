"""Cross-field checks of synthesis against a teacher, before anything expensive starts."""

from collections import Counter

import torch
from torch import nn

from nas_core.errors import InputError
from nas_core.synthesis.config import SynthesisConfig
from nas_core.synthesis.labels import chosen_classes
from nas_core.teachers.teacher import Teacher

LARGEST_CANVAS_SIDE = 8192


def check_synthesis(teacher: Teacher, config: SynthesisConfig) -> None:
    """Check that canvases, stages and classes fit the teacher, and that it has the statistics that the loss needs.

    Raises:
        InputError: Naming the field to change.
    """
    canvas, window = config.canvas_size(teacher.input_shape), teacher.input_shape[1:]
    if canvas[0] < window[0] or canvas[1] < window[1]:
        raise InputError(
            f"synthesis.canvas is {canvas[0]}x{canvas[1]}, smaller than the teacher's input {window[0]}x{window[1]}: "
            "make it at least as large"
        )
    if max(canvas) > LARGEST_CANVAS_SIDE:
        raise InputError(
            f"synthesis.canvas is {canvas[0]}x{canvas[1]}; sides above {LARGEST_CANVAS_SIDE} pixels are refused"
        )
    chosen_classes(config.classes, teacher.class_names)
    for divisor in sorted({stage.divisor for stage in config.pixels.stages} - {1}):
        _check_divisor(teacher, canvas, divisor)
    if config.pixels.losses.batch_norm > 0 and not teacher.batch_norms:
        raise InputError(
            "synthesis matches the running statistics of BatchNorm layers, of which the teacher has none (its norm "
            f"layers: {_norm_layers(teacher)}): use another teacher, or set synthesis.pixels.losses.batch_norm to 0 "
            "for images from the class loss and priors alone"
        )


def _check_divisor(teacher: Teacher, canvas: tuple[int, int], divisor: int) -> None:
    """Check that a stage's resolution exists and that the teacher can see it."""
    window = teacher.input_shape[1:]
    if any(side % divisor for side in (*canvas, *window)):
        raise InputError(
            f"synthesis.pixels.stages has divisor {divisor}, which does not divide the canvas {canvas[0]}x{canvas[1]} "
            f"and the teacher's input {window[0]}x{window[1]}: choose another divisor or synthesis.canvas"
        )
    size = [side // divisor for side in window]
    try:
        teacher.logits(torch.zeros(2, teacher.input_shape[0], *size, device=teacher.device))
    except RuntimeError as error:
        reason = str(error).partition("\n")[0]
        raise InputError(
            f"synthesis.pixels.stages has divisor {divisor}, but the teacher cannot take images of {size[0]}x{size[1]} "
            f"({reason}): leave out that stage"
        ) from error


def _norm_layers(teacher: Teacher) -> str:
    """The teacher's normalisation layers by type and number, such as "12 LayerNorm"."""
    found = Counter(
        type(module).__name__ + (" without running statistics" if isinstance(module, nn.BatchNorm2d) else "")
        for module in teacher.module.modules()
        if "Norm" in type(module).__name__
    )
    return ", ".join(f"{count} {name}" for name, count in found.items()) or "none, or folded into the convolutions"
