"""Labelled real images: they judge the finished networks, and fine-tuning learns from others if it is asked for.

No module of synthesis, search or retraining may import this one. A source is built, and thereby checked, before
anything expensive starts: building reads names, shapes and labels, but no pixel.
"""

import functools
import hashlib
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from PIL import Image
from torch import Tensor

from nas_core.errors import InputError
from nas_core.settings.data import FolderSpec, NpzSpec, TorchvisionSpec, data_sources
from nas_core.teachers.teacher import Teacher, reason_of

Pixels = UInt8[Tensor, "channels height width"]


@dataclass(frozen=True)
class LabelledImages:
    """Real images with labels, served as the teacher wants to see them.

    Attributes:
        source: Where they come from, in words for the report, such as "torchvision CIFAR10, test split".
        labels: The class index of each image, in the order of the teacher's classes.
        load: The bytes of the image at an index, gray or RGB, in any size.
        teacher: Gives input shape, mean and std; its device is where batches are made.
        resize: Length of the shorter side before the central crop, in pixels; None: just large enough to crop.
        files: Gives what tells the files from others of the same labels without reading a pixel: names and sizes.

    Raises:
        InputError: Without images, with a label that is none of the teacher's, or with `resize` below its input.
    """

    source: str
    labels: Int64[Tensor, " images"]
    load: Callable[[int], Pixels]
    teacher: Teacher
    resize: int | None = None
    files: Callable[[], str] = str

    def __post_init__(self) -> None:
        """Check what can be checked without reading a pixel."""
        height, width = self.teacher.input_shape[1:]
        if len(self.labels) == 0:
            raise InputError(f"{self.source} holds no images; give a source that does")
        low, high = int(self.labels.min()), int(self.labels.max())
        if low < 0 or high >= self.teacher.num_classes:
            raise InputError(
                f"{self.source} has labels from {low} to {high}, but the teacher's {self.teacher.num_classes} classes "
                f"are 0 to {self.teacher.num_classes - 1}; use the teacher's class indices"
            )
        if self.resize is not None and self.resize < max(height, width):
            raise InputError(
                f"resize = {self.resize} is smaller than the teacher's input of {height} x {width}; "
                f"give at least {max(height, width)}"
            )

    def __len__(self) -> int:
        """Number of images."""
        return len(self.labels)

    def fingerprint(self) -> str:
        """SHA-256 over the labels and `files`."""
        return hashlib.sha256(self.labels.numpy().tobytes() + self.files().encode()).hexdigest()

    def same_as(self, other: "LabelledImages") -> bool:
        """Whether another source has the same images, such as a copy of the files.

        Of equal fingerprints, which may be of labels and sizes alone, the first image decides.
        """
        return self.fingerprint() == other.fingerprint() and torch.equal(self.load(0), other.load(0))

    def batches(
        self, batch_size: int
    ) -> Iterator[tuple[Float[Tensor, "batch channels height width"], Int64[Tensor, " batch"]]]:
        """Normalised images with their labels in stored order, on the teacher's device, the last batch included."""
        device = self.teacher.device
        for indices in torch.arange(len(self)).split(batch_size):
            images = torch.stack([fit(self.load(i), self.teacher.input_shape, self.resize) for i in indices.tolist()])
            yield self.teacher.normalise(images.to(device)), self.labels[indices].to(device)


def fit(
    image: Pixels, input_shape: tuple[int, int, int], resize: int | None = None
) -> UInt8[Tensor, "input_channels input_height input_width"]:
    """An image in the channels and size of the teacher's input.

    Args:
        image: Gray or RGB bytes.
        input_shape: (channels, height, width) of the result; channels are the image's, or 1 for 3 or 3 for 1.
        resize: Length of the shorter side before the central crop, in pixels, at least the input's longer side;
            None: the smallest size that covers the input, so that an image of the right size is left alone.
    """
    from torchvision.transforms.v2 import functional as transforms

    channels, *size = input_shape
    if image.shape[0] != channels:
        image = _gray(image) if channels == 1 else transforms.grayscale_to_rgb(image)
    covered = [resize, resize] if resize is not None else size
    scale = max(wanted / side for wanted, side in zip(covered, image.shape[1:], strict=True))
    scaled = [round(side * scale) for side in image.shape[1:]]
    return transforms.center_crop(transforms.resize(image, scaled, antialias=True), size)


def _gray(image: UInt8[Tensor, "3 height width"]) -> UInt8[Tensor, "1 height width"]:
    """Luminance (ITU-R 601-2), rounded as Pillow does; torchvision truncates and so darkens."""
    weights = torch.tensor([0.299, 0.587, 0.114])
    return torch.einsum("chw,c->hw", image.float(), weights).round().to(torch.uint8).unsqueeze(0)


@data_sources.register(FolderSpec)
def folder_images(path: Path, resize: int | None, teacher: Teacher) -> LabelledImages:
    """Image files in one sub-folder per class, which is matched by name, by index, or else by alphabetical order."""
    channels = teacher.input_shape[0]
    if not path.is_dir():
        raise InputError(f"{path} is no folder; give one with a sub-folder per class")
    if channels not in (1, 3):
        raise InputError(f"image files are gray or RGB, but the teacher takes {channels} channels; use an npz source")
    folders = sorted(entry for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if not folders:
        raise InputError(f"{path} has no sub-folders; put the images into one sub-folder per class")
    from torchvision.datasets.folder import IMG_EXTENSIONS

    files: list[Path] = []
    labels: list[int] = []
    for folder, label in zip(folders, _class_indices(path, [f.name for f in folders], teacher), strict=True):
        found = sorted(file for file in folder.iterdir() if file.suffix.lower() in IMG_EXTENSIONS)
        if not found:
            raise InputError(f"{folder} has no image files; put images of its class directly into it, or remove it")
        files += found
        labels += [label] * len(found)
    return LabelledImages(
        f"folder {path.name}",
        torch.tensor(labels),
        lambda i: _decode(files[i], channels),
        teacher,
        resize,
        files=lambda: repr([(file.relative_to(path).as_posix(), file.stat().st_size) for file in files]),
    )


def _class_indices(path: Path, folders: Sequence[str], teacher: Teacher) -> list[int]:
    """Which class each folder holds: by name if all are class names; if none is, by index or else by order."""
    unknown = [name for name in folders if name not in teacher.class_names]
    ambiguous = [name for name in folders if teacher.class_names.count(name) > 1]
    if ambiguous:
        raise InputError(
            f"the teacher has more than one class '{ambiguous[0]}', so {path} cannot be matched by name; "
            "name the sub-folders by the indices of the classes"
        )
    if not unknown:
        return [teacher.class_names.index(name) for name in folders]
    if len(unknown) < len(folders):
        raise InputError(
            f"{path} has a sub-folder '{unknown[0]}' that is no class of the teacher, while others are; "
            "rename or remove it"
        )
    if all(name.isdecimal() for name in folders):
        # Not by order, which is 0, 1, 10, 11, ..., 2.
        if beyond := [name for name in folders if int(name) >= teacher.num_classes]:
            raise InputError(
                f"{path} has a sub-folder '{beyond[0]}', but the teacher's class indices are 0 to "
                f"{teacher.num_classes - 1}; rename the sub-folders"
            )
        return [int(name) for name in folders]
    if len(folders) != teacher.num_classes:
        raise InputError(
            f"{path} has {len(folders)} sub-folders, but the teacher has {teacher.num_classes} classes; "
            "give one sub-folder per class, or name them like the classes or by their indices"
        )
    return list(range(len(folders)))


def _decode(file: Path, channels: int) -> Pixels:
    """An image file as gray or RGB bytes.

    Raises:
        InputError: If it is no whole image; says its name.
        OSError: If it cannot be read for now.
    """
    from torchvision.transforms.v2.functional import pil_to_tensor

    try:
        with Image.open(file) as image:
            return pil_to_tensor(image.convert("L" if channels == 1 else "RGB"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise InputError(f"{file} cannot be read as an image ({reason_of(error)}); repair or remove it") from error


@data_sources.register(NpzSpec)
def npz_images(path: Path, resize: int | None, teacher: Teacher) -> LabelledImages:
    """Arrays of one .npz file; axis 1 holds the channels if its length is 1, 3 or the teacher's, else the last does."""
    if not path.is_file() or not zipfile.is_zipfile(path):  # a device would be read without end
        raise InputError(f"{path} is no .npz file; write one with numpy.savez")
    shapes = {}
    for array, wanted in (("images", np.uint8), ("labels", np.integer)):
        shapes[array], dtype = _npz_header(path, array)
        if not np.issubdtype(dtype, wanted):
            raise InputError(f"`{array}` in {path} is of type {dtype}; store it as {wanted.__name__}")
    axis = _channel_axis(path, shapes["images"], teacher.input_shape[0])
    if shapes["labels"] != shapes["images"][:1]:
        raise InputError(
            f"`labels` in {path} has shape {list(shapes['labels'])}, but there are {shapes['images'][0]} images; "
            "store one class index per image"
        )

    @functools.cache
    def images() -> Tensor:
        with np.load(path) as arrays:
            array = torch.from_numpy(arrays["images"])
        return array.unsqueeze(1) if axis is None else array.movedim(axis, 1)

    with np.load(path) as arrays:
        labels = torch.from_numpy(arrays["labels"].astype(np.int64))
    with zipfile.ZipFile(path) as archive:
        checksums = repr([(member.filename, member.CRC) for member in archive.infolist()])
    return LabelledImages(f"npz {path.name}", labels, lambda i: images()[i], teacher, resize, lambda: checksums)


def _npz_header(path: Path, array: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and type of an array in an .npz file, without reading its values."""
    with zipfile.ZipFile(path) as archive:
        if f"{array}.npy" not in archive.namelist():
            raise InputError(f"{path} has no array `{array}`; store `images` and `labels`")
        with archive.open(f"{array}.npy") as stream:
            version = np.lib.format.read_magic(stream)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, _, dtype = read(stream)
    return shape, dtype


def _channel_axis(path: Path, shape: tuple[int, ...], channels: int) -> int | None:
    """Which axis of `images` holds channels that can become the teacher's; None for [N, H, W]."""
    convertible = {1, 3, channels} if channels in (1, 3) else {channels}
    if len(shape) == 3 and 1 in convertible:
        return None
    for axis in (1, 3):
        if len(shape) == 4 and shape[axis] in convertible:
            return axis
    raise InputError(
        f"`images` in {path} has shape {list(shape)}, which does not fit a teacher of {channels} channels; store "
        "[N, H, W], [N, H, W, C] or [N, C, H, W]"
    )


@data_sources.register(TorchvisionSpec)
def torchvision_images(
    dataset: str, root: Path, split: str, download: bool, resize: int | None, teacher: Teacher
) -> LabelledImages:
    """A data set of torchvision; its classes are the teacher's in the same order, unless the names say another."""
    from torchvision import datasets
    from torchvision.transforms.v2.functional import pil_to_tensor

    kind = getattr(datasets, dataset)
    try:
        images = kind(root, train=split == "train", download=download)
    except (RuntimeError, OSError) as error:
        if download:
            raise InputError(
                f"torchvision cannot fetch {dataset} into {root} ({reason_of(error)}); put its files there yourself"
            ) from error
        if isinstance(error, OSError):
            raise  # Of a file system, which may pass.
        raise InputError(
            f"torchvision finds no complete {dataset} in {root}; correct root, or set download: true"
        ) from error
    if len(images.classes) != teacher.num_classes:
        raise InputError(
            f"{dataset} has {len(images.classes)} classes, but the teacher has {teacher.num_classes}; "
            "choose the data set that the teacher was trained on"
        )
    return LabelledImages(
        f"torchvision {dataset}, {split} split",
        torch.tensor(teacher.positions(images.classes))[torch.as_tensor(images.targets)],
        lambda i: pil_to_tensor(images[i][0]),
        teacher,
        resize,
    )
