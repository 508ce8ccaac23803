"""The settings of teachers, by where they come from."""

from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from nas_core.errors import InputError
from nas_core.registry import Registry, Spec
from nas_core.settings.files import UserPath

if TYPE_CHECKING:
    from nas_core.teachers.teacher import Teacher

teachers: "Registry[Teacher]" = Registry("teacher", builders="nas_core.teachers")

ReferenceNetwork: TypeAlias = Literal["resnet20", "resnet32", "resnet44", "resnet56", "digits_resnet"]
"""Names of this module's network factories; each takes `in_channels` and `num_classes`."""

# Of pixels in [0, 1] a mean lies there too, and a larger deviation than theirs is only ever a choice of scale.
LARGEST_STATISTIC = 10.0


class WeightsFileSpec(Spec):
    """What any teacher from a weights file has to say about its input and output."""

    weights: UserPath = Field(
        description="safetensors file or torch state dict; a relative path starts at the current directory, and ~ is "
        "your home directory"
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


@teachers.declare
class CheckpointSpec(WeightsFileSpec):
    """Your own network: a callable that builds it, and a file with its weights."""

    name: Literal["checkpoint"] = "checkpoint"
    factory: str = Field(
        pattern=r"^[\w.]+:[\w.]+$",
        description="importable callable that builds the network, as module:function or module:Class.method; "
        "it is executed",
    )
    arguments: dict[str, Any] = Field(default_factory=dict, description="keyword arguments of the factory")


@teachers.declare
class ReferenceSpec(WeightsFileSpec):
    """A network that ships with dfnas, and a file with its weights."""

    name: Literal["reference"] = "reference"
    network: ReferenceNetwork = Field(description="the network, by name")


@teachers.declare
class TorchvisionSpec(Spec):
    """A torchvision classifier; its weights are downloaded once into torch hub's cache."""

    name: Literal["torchvision"] = "torchvision"
    network: str = Field(description="name of the torchvision classification model, such as resnet18")
    weights: str = Field(default="DEFAULT", description="name of its pretrained weights, such as IMAGENET1K_V1")
    flip_invariant: bool = Field(
        default=True, description="whether a horizontally mirrored image keeps its class (not so for digits or text)"
    )


@teachers.declare
class TimmSpec(Spec):
    """A timm classifier; its weights are downloaded once into the Hugging Face cache, or read from your file."""

    name: Literal["timm"] = "timm"
    network: str = Field(description="name of the timm model, such as resnet18 or resnet18.a1_in1k")
    weights: UserPath | None = Field(
        default=None,
        description="your weights of it, safetensors or torch state dict; null: timm's pretrained ones",
    )
    class_names: Annotated[tuple[str, ...], Field(min_length=2)] | None = Field(
        default=None,
        description="one name per class, in the order of the logits; null: 0, 1, ... up to the pretrained model's",
    )
    flip_invariant: bool = Field(
        default=True, description="whether a horizontally mirrored image keeps its class (not so for digits or text)"
    )


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
