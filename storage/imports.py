"""Images from outside as shards of a dataset: exports of dfnas with their labels, or a plain folder of images.

Nothing in such a folder is trusted: its files are read as data only, and stay within the folder.
"""

import io
import json
import tarfile
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps
from pydantic import TypeAdapter, ValidationError

from storage.dataset import DatasetLayout
from storage.errors import StorageError
from storage.export import ABOUT, LABELS, LABELS_FILE, image_key, tar_name
from storage.files import digest_of_json, leads_outside, read_json, refuse_outside_links

IMAGE_ENDINGS = {".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}
# Rows of float32 probabilities of a thousand classes sum to 1 with an error of this size at most.
SUM_TOLERANCE = 1e-3


@dataclass(frozen=True)
class ExportedImages:
    """A folder that `export_dataset` wrote.

    Attributes:
        root: The folder.
        layout: Of the dataset that it was written from.
        provenance: What that said of itself.
        listing: Digest of the layout and the provenance.
    """

    root: Path
    layout: DatasetLayout
    provenance: dict[str, Any]
    listing: str

    def holds(self, layout: DatasetLayout) -> bool:
        """Whether a dataset of these sizes can be read: shards come back whole or not at all."""
        return layout == self.layout

    def read(self, round_: int, shard: int) -> dict[str, np.ndarray]:
        """One shard-round, as `SyntheticStore.write` takes it.

        Raises:
            StorageError: If something of it is missing, or is not what the layout says.
        """
        read = _read_folder if (self.root / LABELS_FILE).exists() else _read_tar
        try:
            arrays = read(self.root, self.layout, round_, shard)
        except (StorageError, OSError, KeyError, TypeError, ValueError, tarfile.TarError, zipfile.BadZipFile) as error:
            raise StorageError(f"round {round_} shard {shard} in {self.root} cannot be read: {error}") from error
        for name in ("targets", "soft_labels"):
            rows = arrays[name]
            if not (np.isfinite(rows).all() and (rows >= 0).all() and np.allclose(rows.sum(1), 1, atol=SUM_TOLERANCE)):
                raise StorageError(f"{name} of round {round_} shard {shard} in {self.root} are no class probabilities")
        return arrays


@dataclass(frozen=True)
class PlainImages:
    """A folder with a folder of images per class, as torchvision's ImageFolder has it.

    Attributes:
        root: The folder.
        files: Every image, relative to it, in order.
        classes: The name of each one's folder.
        listing: Digest of the names.
    """

    root: Path
    files: tuple[str, ...]
    classes: tuple[str, ...]
    listing: str

    def holds(self, layout: DatasetLayout) -> bool:
        """Whether a dataset of these sizes can be read: every image once, in one round."""
        return layout.rounds == 1 and layout.images <= len(self.files)

    def common_size(self) -> tuple[int, int] | None:
        """Height and width of the images, if all are of one size; else None."""
        sizes = set()
        for name in self.files:
            path = self.root / name
            sizes.add(_opened(path, path, lambda image: image.size))
            if len(sizes) > 1:
                return None
        ((width, height),) = sizes
        return height, width

    def read(self, numbers: Sequence[int], canvas: tuple[int, int, int]) -> np.ndarray:
        """Some of the images as bytes.

        One of the canvas's size is left as it is; another is resized until it covers the canvas, and cropped in the
        middle.

        Args:
            numbers: Which ones.
            canvas: (channels, height, width): 1 is gray, 3 is RGB.

        Returns:
            uint8, [images, channels, height, width].

        Raises:
            StorageError: If one is no image, or a part of one; names it.
        """
        paths = [self.root / self.files[number] for number in numbers]
        return np.stack([_opened(path, path, lambda image: _fitted(image, canvas)) for path in paths])


def open_images(folder: Path) -> ExportedImages | PlainImages:
    """What a folder holds.

    Raises:
        StorageError: If there are no images, links lead out of it, or what describes it is damaged.
    """
    if not folder.is_dir():
        raise StorageError(f"{folder} is no folder")
    refuse_outside_links(folder)
    return _open_export(folder) if (folder / ABOUT).exists() else _open_plain(folder)


def _open_export(folder: Path) -> ExportedImages:
    about = read_json(folder / ABOUT)
    try:
        layout = TypeAdapter(DatasetLayout).validate_python(about["layout"])
        provenance = TypeAdapter(dict[str, Any]).validate_python(about["provenance"])
    except (KeyError, TypeError, ValidationError) as error:
        raise StorageError(f"{folder / ABOUT} does not say what `dfnas export-dataset` writes there") from error
    sizes = (layout.rounds, layout.shards, layout.batch_size, *layout.canvas, layout.num_classes)
    if min(sizes) < 1 or layout.canvas[0] not in (1, 3):
        raise StorageError(f"{folder / ABOUT} has sizes that no dataset has")
    if not (folder / LABELS_FILE).exists():
        names = map(tar_name, range(layout.rounds * layout.shards))
        if absent := next((name for name in names if not (folder / name).exists()), None):
            raise StorageError(f"{folder} has neither {LABELS_FILE} nor {absent}")
    return ExportedImages(folder, layout, provenance, digest_of_json(about))


def _open_plain(folder: Path) -> PlainImages:
    found = sorted(
        path.relative_to(folder)
        for path in folder.glob("*/**/*")
        if path.suffix.lower() in IMAGE_ENDINGS and path.is_file()
    )
    if not found:
        raise StorageError(f"{folder} has no images in folders of classes, and no {ABOUT} of an export")
    names = tuple(path.as_posix() for path in found)
    return PlainImages(folder, names, tuple(path.parts[0] for path in found), digest_of_json(list(names)))


def _read_folder(root: Path, layout: DatasetLayout, round_: int, shard: int) -> dict[str, np.ndarray]:
    start, count = layout.position(round_, shard) * layout.batch_size, layout.batch_size
    with zipfile.ZipFile(root / LABELS_FILE) as archive:
        names = _rows(archive, "files", layout.images, start, count).tolist()
        labels = {name: _rows(archive, name, layout.images, start, count) for name in LABELS}
    canvases = []
    for name in names:
        if leads_outside(name):
            raise ValueError(f"{LABELS_FILE} names {name}, which is outside")
        canvases.append(_png((root / name).read_bytes(), name, layout))
    return _checked({"canvases": np.stack(canvases), **labels}, layout, round_)


def _rows(archive: zipfile.ZipFile, name: str, length: int, start: int, count: int) -> np.ndarray:
    """Some rows of one array of an npz file, without reading those behind them."""
    with archive.open(f"{name}.npy") as member:
        if np.lib.format.read_magic(member) != (1, 0):
            raise ValueError(f"{name} is stored in another version of the npy format")
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(member)
        if dtype.hasobject or fortran or shape[:1] != (length,):
            raise ValueError(f"{name} is no array of {length} rows of numbers or names")
        size = dtype.itemsize * int(np.prod(shape[1:]))
        member.seek(member.tell() + start * size)
        return np.frombuffer(member.read(count * size), dtype).reshape(count, *shape[1:]).copy()


def _read_tar(root: Path, layout: DatasetLayout, round_: int, shard: int) -> dict[str, np.ndarray]:
    with tarfile.open(root / tar_name(layout.position(round_, shard)), "r:") as archive:

        def content(number: int, ending: str) -> bytes:
            name = f"{image_key(round_, shard, number)}.{ending}"
            file = archive.extractfile(name)
            if file is None:
                raise ValueError(f"{name} is no file")
            return file.read()

        rows: dict[str, list[Any]] = {"canvases": [], "targets": [], "soft_labels": [], "losses": []}
        for number in range(layout.batch_size):
            rows["canvases"].append(_png(content(number, "png"), f"image {number}", layout))
            for name in ("targets", "soft_labels"):
                row = np.load(io.BytesIO(content(number, f"{name.removesuffix('s')}.npy")), allow_pickle=False)
                rows[name].append(row)
            rows["losses"].append(np.float32(json.loads(content(number, "json"))["loss"]))
    arrays = {name: np.stack(row) for name, row in rows.items()}
    return _checked({**arrays, "rounds": np.full(layout.batch_size, round_, np.int32)}, layout, round_)


def _checked(arrays: dict[str, np.ndarray], layout: DatasetLayout, round_: int) -> dict[str, np.ndarray]:
    """The arrays without "rounds", if they are those of this layout and round."""
    for name, (shape, dtype, _) in layout.arrays().items():
        if arrays[name].shape != (layout.batch_size, *shape) or arrays[name].dtype != dtype:
            raise ValueError(f"{name} are {arrays[name].dtype} of {arrays[name].shape[1:]}, not {dtype} of {shape}")
    if (arrays.pop("rounds") != round_).any():
        raise ValueError("its images are of another round")
    if not np.isfinite(arrays["losses"]).all():
        raise ValueError("its losses are no finite numbers")
    return arrays


def _png(content: bytes, name: str, layout: DatasetLayout) -> np.ndarray:
    """The bytes of an exported image, whose size and channels must be those of the canvas."""

    def exact(image: Image.Image) -> np.ndarray:
        channels, height, width = layout.canvas
        if image.size != (width, height) or image.mode != ("L" if channels == 1 else "RGB"):
            raise StorageError(f"{name} is {image.mode} of {image.size}, the canvas is {layout.canvas}")
        return _channels_first(image)

    return _opened(io.BytesIO(content), name, exact)


def _opened(source: Path | io.BytesIO, name: Path | str, use: Callable[[Image.Image], Any]) -> Any:
    """What `use` makes of an image; one whose header promises more pixels than memory is not decoded.

    Raises:
        StorageError: If it is no whole image; says its name.
        OSError: If its file cannot be read for now.
    """
    try:
        with Image.open(source) as image:
            if image.width * image.height > (Image.MAX_IMAGE_PIXELS or 0):
                raise StorageError(f"{name} has {image.width}x{image.height} pixels, which is refused")
            return use(image)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise StorageError(f"{name} is no image that can be read: {error}") from error


def _fitted(image: Image.Image, canvas: tuple[int, int, int]) -> np.ndarray:
    channels, height, width = canvas
    converted = image.convert("L" if channels == 1 else "RGB")
    if converted.size != (width, height):
        converted = ImageOps.fit(converted, (width, height), Image.Resampling.BICUBIC)
    return _channels_first(converted)


def _channels_first(image: Image.Image) -> np.ndarray:
    array = np.asarray(image)
    return array[None] if array.ndim == 2 else np.ascontiguousarray(array.transpose(2, 0, 1))
