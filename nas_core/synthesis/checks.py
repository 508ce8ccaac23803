"""Cross-field checks of synthesis against a teacher, before anything expensive starts."""

from nas_core.errors import InputError
from nas_core.synthesis.config import SynthesisConfig
from nas_core.teachers.teacher import Teacher

LARGEST_CANVAS_SIDE = 8192


def check_synthesis(teacher: Teacher, config: SynthesisConfig) -> None:
    """Check that canvases fit the teacher and that it has the statistics that the loss needs.

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
    usable = [norm for norm in teacher.batch_norms.values() if norm.track_running_stats]
    if config.pixels.losses.batch_norm > 0 and not usable:
        raise InputError(
            "the teacher has no BatchNorm layer with running statistics, which synthesis matches: use another teacher, "
            "or set synthesis.pixels.losses.batch_norm to 0 for images from the class loss and priors alone"
        )
