"""A teacher from timm's image models; timm is an optional dependency (`pip install 'dfnas[timm]'`)."""

import importlib
from pathlib import Path
from typing import Any

from nas_core.errors import InputError
from nas_core.settings.teachers import TimmSpec, all_class_names, teachers
from nas_core.teachers.teacher import Teacher, checked
from nas_core.teachers.torchvision_source import one_of
from nas_core.teachers.weights import load_weights


@teachers.register(TimmSpec)
def timm_teacher(
    *, network: str, weights: Path | None, class_names: tuple[str, ...] | None, flip_invariant: bool
) -> Teacher:
    """Build a timm model with the input size, mean, std and number of classes of its pretrained config.

    The arguments are the fields of `TimmSpec`.

    Raises:
        InputError: If timm is not installed, the network is unknown, or its weights are unusable.
    """
    timm = _timm()
    architecture, _, tag = network.partition(".")
    one_of("timm network", architecture, timm.list_models())
    if tag:
        one_of(f"weights of {architecture}", network, timm.list_pretrained(f"{architecture}.*"))
    # A number of classes makes timm replace the last layer, which only a weights file can fill again.
    head = {} if class_names is None else {"num_classes": len(class_names)}
    if weights is None:
        module = _pretrained(timm, network)
    else:
        module = timm.create_model(network, **head)
        load_weights(module, weights)
    data = timm.data.resolve_model_data_config(module)
    names = all_class_names(class_names, None if class_names else module.num_classes)
    return checked(
        Teacher(module, tuple(data["input_size"]), tuple(data["mean"]), tuple(data["std"]), names, flip_invariant)
    )


def _timm() -> Any:
    try:
        importlib.import_module("timm.data")
        return importlib.import_module("timm")
    except ImportError as error:
        raise InputError(f"a timm teacher needs timm ({error}); install it with: pip install 'dfnas[timm]'") from error


def _pretrained(timm: Any, network: str) -> Any:
    """The model with timm's weights, from the Hugging Face cache or the network."""
    try:
        return timm.create_model(network, pretrained=True)
    except (OSError, RuntimeError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise InputError(
            f"the pretrained weights of the timm network '{network}' can neither be read nor downloaded ({reason}); "
            "give a file as teacher.weights"
        ) from error
