"""From the config of synthesis to its engine, with checks against the teacher before anything expensive starts."""

from collections import Counter
from collections.abc import Mapping

from torch import Tensor, nn

from nas_core.errors import InputError
from nas_core.settings.synthesis import GeneratorSpec, engines
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
    engine = build_engine(teacher, config)
    engine.check()
    weights = {"synthesis.engine.losses": engine.objective.losses}
    if isinstance(config.engine, GeneratorSpec) and config.engine.refinement is not None:
        weights["synthesis.engine.refinement.losses"] = config.engine.refinement.losses
    names = ("batch_norm", "relative_batch_norm")
    wanted = [f"{section}.{name}" for section, losses in weights.items() for name in names if getattr(losses, name) > 0]
    if wanted and not teacher.batch_norms:
        raise InputError(
            "synthesis matches the running statistics of BatchNorm layers, of which the teacher has none (its norm "
            f"layers: {_norm_layers(teacher)}): use another teacher, or set {wanted[0]} to 0 for "
            "images from the class loss and priors alone"
        )


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


def _norm_layers(teacher: Teacher) -> str:
    """The teacher's normalisation layers by type and number, such as "12 LayerNorm"."""
    found = Counter(
        type(module).__name__ + (" without running statistics" if isinstance(module, nn.BatchNorm2d) else "")
        for module in teacher.module.modules()
        if "Norm" in type(module).__name__
    )
    return ", ".join(f"{count} {name}" for name, count in found.items()) or "none, or folded into the convolutions"
