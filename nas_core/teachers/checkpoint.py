"""A teacher from a weights file and a network that the user names."""

import importlib
import operator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator
from torch import nn

from nas_core.errors import InputError
from nas_core.registry import Spec
from nas_core.teachers.teacher import Teacher, checked, teachers
from nas_core.teachers.weights import load_weights

# Of pixels in [0, 1] a mean lies there too, and a larger deviation than theirs is only ever a choice of scale.
LARGEST_STATISTIC = 10.0


class WeightsFileSpec(Spec):
    """What any teacher from a weights file has to say about its input and output."""

    weights: Path = Field(
        description="safetensors file or torch state dict; a relative path starts at the current directory"
    )
    input_shape: tuple[PositiveInt, PositiveInt, PositiveInt] = Field(
        description="channels, height and width of the images that the network was trained on, in pixels"
    )
    mean: tuple[float, ...] = Field(description="mean of its preprocessing, one per channel, for pixels in [0, 1]")
    std: tuple[PositiveFloat, ...] = Field(
        description="standard deviation of its preprocessing, one per channel, for pixels in [0, 1]"
    )
    class_names: Annotated[tuple[str, ...], Field(min_length=2)] | None = Field(
        default=None, description="one name per class, in the order of the logits; or give num_classes"
    )
    num_classes: int | None = Field(
        default=None, ge=2, description="number of classes, which are then named 0, 1, ...; or give class_names"
    )
    flip_invariant: bool = Field(
        default=True, description="whether a horizontally mirrored image keeps its class (not so for digits or text)"
    )

    @model_validator(mode="after")
    def _counts_pixels_from_0_to_1(self) -> "WeightsFileSpec":
        for name, values in (("mean", self.mean), ("std", self.std)):
            if max(map(abs, values)) > LARGEST_STATISTIC:
                raise ValueError(
                    f"{name} = {list(values)} looks like a preprocessing of pixels in [0, 255]; "
                    "here they are in [0, 1]: divide by 255"
                )
        return self

    @model_validator(mode="after")
    def _names_its_classes(self) -> "WeightsFileSpec":
        all_class_names(self.class_names, self.num_classes)
        return self


class CheckpointSpec(WeightsFileSpec):
    """Your own network: a callable that builds it, and a file with its weights."""

    name: Literal["checkpoint"] = "checkpoint"
    factory: str = Field(
        pattern=r"^[\w.]+:[\w.]+$",
        description="importable callable that builds the network, as module:function or module:Class.method; "
        "it is executed",
    )
    arguments: dict[str, Any] = Field(default_factory=dict, description="keyword arguments of the factory")


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
        InputError: If it cannot be imported, refuses the arguments, or returns no torch module.
    """
    module_name, _, attribute = factory.partition(":")
    try:
        build = operator.attrgetter(attribute)(importlib.import_module(module_name))
    except (ImportError, AttributeError) as error:
        raise InputError(
            f"the factory '{factory}' cannot be imported ({error}); install it or add its folder to PYTHONPATH"
        ) from error
    try:
        network = build(**arguments)
    except TypeError as error:
        raise InputError(f"the factory '{factory}' refused the arguments {arguments} ({error}); fix them") from error
    if not isinstance(network, nn.Module):
        raise InputError(
            f"the factory '{factory}' returned a {type(network).__name__}; it must return a torch.nn.Module"
        )
    return network


def all_class_names(class_names: tuple[str, ...] | None, num_classes: int | None) -> tuple[str, ...]:
    """The given names, or "0", "1", ... for a given number.

    Raises:
        InputError: Unless exactly one of the two is given.
    """
    if class_names is not None and num_classes is None:
        return class_names
    if num_classes is not None and class_names is None:
        return tuple(map(str, range(num_classes)))
    raise InputError("a teacher needs either class_names or num_classes; give exactly one of them")
