"""A teacher whose network the project ships: a checkpoint teacher with a known factory."""

from pathlib import Path

from nas_core.settings.teachers import ReferenceNetwork, ReferenceSpec, all_class_names, teachers
from nas_core.teachers import networks
from nas_core.teachers.checkpoint import checkpoint_teacher
from nas_core.teachers.teacher import Teacher


@teachers.register(ReferenceSpec)
def reference_teacher(
    *,
    network: ReferenceNetwork,
    weights: Path,
    input_shape: tuple[int, int, int],
    mean: tuple[float, ...],
    std: tuple[float, ...],
    class_names: tuple[str, ...] | None,
    num_classes: int | None,
    flip_invariant: bool,
) -> Teacher:
    """Build the reference network for the described input and classes, and load its weights.

    The arguments are the fields of `ReferenceSpec`.

    Raises:
        InputError: If the weights or the description is wrong; the message says which.
    """
    names = all_class_names(class_names, num_classes)
    return checkpoint_teacher(
        factory=f"{networks.__name__}:{network}",
        arguments={"in_channels": input_shape[0], "num_classes": len(names)},
        weights=weights,
        input_shape=input_shape,
        mean=mean,
        std=std,
        class_names=names,
        num_classes=None,
        flip_invariant=flip_invariant,
    )
