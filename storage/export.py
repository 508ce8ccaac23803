"""The dataset for other tools: an ImageFolder or a WebDataset, with the labels beside the images.

The class of an image is the largest entry of its target. Both forms are written under a temporary name and renamed.
"""

import io
import json
import shutil
import tarfile
import uuid
import zipfile
from collections.abc import Callable
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from storage.dataset import SyntheticStore
from storage.errors import ExistsError, StorageError
from storage.files import TEMPORARY_SUFFIX, refuse_outside_links, write_json

ABOUT = "dataset.json"
LABELS_FILE = "labels.npz"
LABELS = ("targets", "soft_labels", "rounds", "losses")


class ExportFormat(StrEnum):
    """What an exported dataset looks like.

    imagefolder: `<class>/<image>.png`, and `labels.npz` with "files", "targets", "soft_labels", "rounds", "losses".
    webdataset: `shard-000000.tar`, ...; each image has `.png`, `.cls`, `.json`, `.target.npy` and `.soft_label.npy`.
    """

    IMAGEFOLDER = "imagefolder"
    WEBDATASET = "webdataset"


def export_dataset(
    path: Path, out: Path, form: ExportFormat, progress: Callable[[int, int, dict[str, float]], None]
) -> int:
    """Write a finished dataset in another form.

    Args:
        path: The dataset's Zarr group.
        out: Folder to make; with `dataset.json` in it, which says where the images come from.
        form: How to write it.
        progress: Called as progress(done, total, {}) after every shard-round.

    Returns:
        The number of images.

    Raises:
        ExistsError: If there is something at `out`.
        StorageError: If a shard-round is missing or damaged, or the images are neither gray nor RGB.
    """
    if out.exists():
        raise ExistsError(f"{out} exists: choose a folder that does not")
    if path.exists():
        refuse_outside_links(path)
    store = SyntheticStore.open(path)
    if store.layout.canvas[0] not in (1, 3):
        raise StorageError(f"images of {store.layout.canvas[0]} channels cannot be PNG, only those of 1 or 3")
    out.parent.mkdir(parents=True, exist_ok=True)
    aside = out.with_name(f".{out.name}.{uuid.uuid4()}{TEMPORARY_SUFFIX}")
    aside.mkdir()
    try:
        write_json(aside / ABOUT, {"layout": asdict(store.layout), "provenance": store.provenance})
        write = _write_image_folder if form is ExportFormat.IMAGEFOLDER else _write_tars
        write(store, aside, progress)
        aside.rename(out)
    except BaseException:
        shutil.rmtree(aside)
        raise
    return store.layout.images


def _write_image_folder(store: SyntheticStore, folder: Path, progress: Callable[..., None]) -> None:
    positions = store.layout.positions()
    digits = _class_digits(store)
    names = []
    for done, (round_, shard) in enumerate(positions, start=1):
        classes = store.read(round_, shard, "targets").argmax(axis=1)
        for number, canvas in enumerate(store.read(round_, shard, "canvases")):
            name = f"{classes[number]:0{digits}d}/{image_key(round_, shard, number)}.png"
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(_png(canvas))
            names.append(name)
        progress(done, len(positions), {})
    with zipfile.ZipFile(folder / LABELS_FILE, "w") as archive:
        with archive.open(zipfile.ZipInfo("files.npy"), "w", force_zip64=True) as member:
            np.save(member, np.array(names))
        for name in LABELS:
            _write_array(archive, store, name)


def _write_array(archive: zipfile.ZipFile, store: SyntheticStore, name: str) -> None:
    """Write one array of all images into an npz file, shard by shard: whole, a thousand classes may not fit."""
    shape, dtype, _ = store.layout.arrays()[name]
    header = {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": (store.layout.images, *shape)}
    # A ZipInfo of its own has a fixed date, so that the same images give the same bytes.
    with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
        np.lib.format.write_array_header_1_0(member, header)
        for round_, shard in store.layout.positions():
            member.write(store.read(round_, shard, name).tobytes())


def _write_tars(store: SyntheticStore, folder: Path, progress: Callable[..., None]) -> None:
    positions = store.layout.positions()
    for done, (round_, shard) in enumerate(positions, start=1):
        canvases, *labels = (store.read(round_, shard, name) for name in ("canvases", *LABELS))
        with tarfile.open(folder / tar_name(done - 1), "w") as archive:
            for number, (canvas, target, soft_label, _, loss) in enumerate(zip(canvases, *labels, strict=True)):
                label = int(target.argmax())
                facts = {"class": label, "round": round_, "shard": shard, "loss": float(loss)}
                sample = {
                    "png": _png(canvas),
                    "cls": str(label).encode(),
                    "json": json.dumps(facts).encode(),
                    "target.npy": _npy(target),
                    "soft_label.npy": _npy(soft_label),
                }
                for ending, content in sample.items():
                    member = tarfile.TarInfo(f"{image_key(round_, shard, number)}.{ending}")
                    member.size = len(content)
                    archive.addfile(member, io.BytesIO(content))
        progress(done, len(positions), {})


def image_key(round_: int, shard: int, number: int) -> str:
    """Name of an image, without its ending."""
    return f"round-{round_:03d}-shard-{shard:05d}-{number:05d}"


def tar_name(position: int) -> str:
    """Name of the archive of a shard-round, by its position in the dataset."""
    return f"shard-{position:06d}.tar"


def _class_digits(store: SyntheticStore) -> int:
    """Digits of a class's folder: all alike, so that the order of names is that of the classes."""
    return len(str(store.layout.num_classes - 1))


def _png(canvas: np.ndarray) -> bytes:
    """A canvas (channels, height, width) of bytes as a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(canvas[0] if len(canvas) == 1 else canvas.transpose(1, 2, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def _npy(array: np.ndarray[Any, Any]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()
