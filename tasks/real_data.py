"""The real images that a config names, for the stages that judge by them or learn from them, and for nobody else."""

from nas_core.config import RunConfig
from nas_core.errors import InputError
from nas_core.evaluation.data import LabelledImages
from nas_core.finetuning import check_finetuning
from nas_core.registry import Spec
from nas_core.settings.data import data_sources
from nas_core.teachers import Teacher


def real_images(key: str, spec: Spec, teacher: Teacher, fingerprint: str | None = None) -> LabelledImages:
    """The labelled images that a config names, as its teacher sees them.

    Args:
        key: The section's in the config, such as evaluation.data.
        spec: The section.
        teacher: The teacher.
        fingerprint: Of those that the run began with; None: they may be any.

    Raises:
        InputError: If they are not there, do not fit, or are other ones by now; begins with the key.
    """
    try:
        images = data_sources.build(spec, teacher=teacher)
    except InputError as error:
        raise InputError(f"{key}: {error}") from error
    if fingerprint not in (None, images.fingerprint()):
        raise InputError(f"{key}: the images are not those that the run began with: restore them, or run again")
    return images


def named_images(config: RunConfig, teacher: Teacher) -> dict[str, LabelledImages]:
    """All labelled images that a config names, by the key of their section; see `real_images`."""
    named = {"evaluation.data": config.evaluation.data, "finetune.data": config.finetune and config.finetune.data}
    return {key: real_images(key, spec, teacher) for key, spec in named.items() if spec is not None}


def check_real_data(config: RunConfig, teacher: Teacher) -> dict[str, str]:
    """Fingerprints of the real images that a config names, by their key, once they are found to be of use.

    Raises:
        InputError: If they are not; begins with the key.
    """
    found = named_images(config, teacher)
    if (learned := found.get("finetune.data")) is not None:
        try:
            check_finetuning(learned)
        except InputError as error:
            raise InputError(f"finetune.data: {error}") from error
        judging = found.get("evaluation.data")
        if judging is not None and learned.same_as(judging):
            raise InputError(
                "finetune.data holds the same images as evaluation.data: a network must be judged on others than those "
                "that it learned from"
            )
    return {key: images.fingerprint() for key, images in found.items()}
