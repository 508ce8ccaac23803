"""The settings of labelled real images: where they are."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from nas_core.registry import Registry, Spec
from nas_core.settings.files import UserPath

if TYPE_CHECKING:
    from nas_core.evaluation.data import LabelledImages

data_sources: "Registry[LabelledImages]" = Registry("data source", builders="nas_core.evaluation.data")


class ImageSpec(Spec):
    """What every source shares."""

    resize: int | None = Field(
        default=None,
        ge=1,
        description="shorter side in pixels before the central crop to the teacher's input (256 is usual for 224); "
        "null: just large enough to crop",
    )

    def place(self) -> dict[str, Any]:
        """What tells its images from those of another source, whichever way they are written or looked at."""
        chosen = {key: value for key, value in self if key not in ("resize", "download")}
        return {key: value.resolve() if isinstance(value, Path) else value for key, value in chosen.items()}


@data_sources.declare
class FolderSpec(ImageSpec):
    """Image files in one sub-folder per class."""

    name: Literal["folder"] = "folder"
    path: UserPath = Field(
        description="folder with one sub-folder per class, named like the teacher's classes, by their indices, or else "
        "in their order"
    )


@data_sources.declare
class NpzSpec(ImageSpec):
    """NumPy arrays `images` and `labels` in one .npz file."""

    name: Literal["npz"] = "npz"
    path: UserPath = Field(
        description=".npz file with `images`, uint8 of shape [N, H, W], [N, H, W, C] or [N, C, H, W], "
        "and `labels`, integers of shape [N]"
    )


@data_sources.declare
class TorchvisionSpec(ImageSpec):
    """A data set of torchvision."""

    name: Literal["torchvision"] = "torchvision"
    dataset: Literal["CIFAR10", "CIFAR100", "FashionMNIST", "KMNIST", "MNIST"] = Field(
        description="class in torchvision.datasets; export others to npz or to a folder"
    )
    root: UserPath = Field(description="folder that holds the data set's files as torchvision lays them out")
    split: Literal["test", "train"] = Field(default="test", description="which part of it")
    download: bool = Field(default=False, description="fetch the files into `root` if they are not there")
