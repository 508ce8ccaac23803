"""A teacher from a weights file and a network that the user names."""

import importlib
import operator
from pathlib import Path
from typing import Any

from torch import nn

from nas_core.errors import InputError
from nas_core.settings.teachers import CheckpointSpec, all_class_names, teachers
from nas_core.teachers.teacher import Teacher, checked, reason_of
from nas_core.teachers.weights import load_weights


@teachers.register(CheckpointSpec)
def checkpoint_teacher(
    *,
    factory: str,
    arguments: dict[str, Any],
    weights: Path,
    input_shape: tuple[int, int, int],
    mean: tuple[float, ...],
    std: tuple[float, ...],
    class_names: tuple[str, ...] | None,
    num_classes: int | None,
    flip_invariant: bool,
) -> Teacher:
    """Build the network, load its weights, and check that it fits its description.

    The arguments are the fields of `CheckpointSpec`.

    Raises:
        InputError: If the factory, the weights or the description is wrong; the message says which.
    """
    names = all_class_names(class_names, num_classes)
    module = build_network(factory, arguments)
    load_weights(module, weights)
    return checked(Teacher(module, input_shape, mean, std, names, flip_invariant))


def build_network(factory: str, arguments: dict[str, Any]) -> nn.Module:
    """Call the factory that "module:callable" names.

    Raises:
        InputError: If it cannot be imported, refuses the arguments, fails, or returns no torch module.
    """
    module_name, _, attribute = factory.partition(":")
    try:
        build = operator.attrgetter(attribute)(importlib.import_module(module_name))
    except (ImportError, AttributeError) as error:
        raise InputError(
            f"the factory '{factory}' cannot be imported ({error}); install it or add its folder to PYTHONPATH"
        ) from error
    except Exception as error:
        raise InputError(f"importing the factory '{factory}' raised {_words(error)}; fix it") from error
    try:
        network = build(**arguments)
    except TypeError as error:
        raise InputError(f"the factory '{factory}' refused the arguments {arguments} ({error}); fix them") from error
    except Exception as error:
        raise InputError(
            f"the factory '{factory}' raised {_words(error)}; fix it, or its arguments {arguments}"
        ) from error
    if not isinstance(network, nn.Module):
        raise InputError(
            f"the factory '{factory}' returned a {type(network).__name__}; it must return a torch.nn.Module"
        )
    return network


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {reason_of(error)}"
