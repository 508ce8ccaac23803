"""From the config of synthesis to its engine, with checks against the teacher before anything expensive starts."""

from collections.abc import Mapping

from torch import Tensor

from nas_core.errors import InputError
from nas_core.settings.synthesis import engines
from nas_core.synthesis import generator as generator
from nas_core.synthesis import imported as imported
from nas_core.synthesis import pixels as pixels
from nas_core.synthesis.config import SynthesisConfig
from nas_core.synthesis.engine import SynthesisEngine
from nas_core.synthesis.labels import chosen_classes
from nas_core.teachers.teacher import Teacher

LARGEST_CANVAS_SIDE = 8192


def check_synthesis(teacher: Teacher, config: SynthesisConfig) -> None:
    """Check that canvases, engine and classes fit the teacher, and that it has the statistics that the loss needs.

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
    build_engine(teacher, config).check()


def build_engine(
    teacher: Teacher, config: SynthesisConfig, learned: Mapping[str, Tensor] | None = None
) -> SynthesisEngine:
    """The engine that a config names.

    Args:
        teacher: On the device where the work happens.
        config: The section.
        learned: What its `learn` returned.
    """
    engine = engines.build(
        config.engine, teacher=teacher, canvas_size=config.canvas_size(teacher.input_shape), labels=config.labels
    )
    if learned:
        engine.load(learned)
    return engine
