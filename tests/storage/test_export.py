"""Exports that other tools read: ImageFolder by torchvision, WebDataset by its naming convention."""

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import ImageFolder

from storage.dataset import DatasetLayout, SyntheticStore
from storage.errors import StorageError
from storage.export import ExportFormat, export_dataset

CLASSES = 12


def quiet(_done: int, _total: int, _figures: dict[str, float]) -> None:
    """No progress bar."""


def make(path: Path, channels: int) -> SyntheticStore:
    """Two rounds of one shard of six images, of classes 0, 2, ..., 10 and then 1, 3, ..., 11."""
    store = SyntheticStore.create(path, DatasetLayout(2, 1, 6, (channels, 5, 4), CLASSES))
    draws = np.random.default_rng(0)
    for round_ in range(2):
        targets = np.full((6, CLASSES), 0.01, np.float32)
        targets[np.arange(6), 2 * np.arange(6) + round_] = 0.89
        arrays = {
            "canvases": draws.integers(0, 256, (6, channels, 5, 4), dtype=np.uint8),
            "targets": targets,
            "soft_labels": draws.random((6, CLASSES), dtype=np.float32),
            "losses": draws.random(6, dtype=np.float32),
        }
        store.write(round_, 0, arrays)
    store.annotate({"teacher": "abc"})
    return store


@pytest.fixture(params=[1, 3], ids=["gray", "rgb"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> SyntheticStore:
    return make(tmp_path / "dataset.zarr", request.param)


def pixels(image: Image.Image) -> np.ndarray:
    array = np.asarray(image)
    return array[None] if array.ndim == 2 else array.transpose(2, 0, 1)


def test_torchvision_reads_the_image_folder_with_the_right_classes(store: SyntheticStore, tmp_path: Path):
    out = tmp_path / "export"
    assert export_dataset(store.path, out, ExportFormat.IMAGEFOLDER, quiet) == 12
    folder = ImageFolder(str(out))
    assert folder.classes == [f"{label:02d}" for label in range(12)]
    assert sorted(label for _, label in folder.samples) == list(range(12))
    labels = np.load(out / "labels.npz")
    index = {name: position for position, name in enumerate(labels["files"])}
    canvases = np.concatenate([store.read(round_, 0, "canvases") for round_ in range(2)])
    for path, label in folder.samples:
        position = index[str(Path(path).relative_to(out))]
        assert labels["targets"][position].argmax() == label
        assert np.array_equal(pixels(Image.open(path)), canvases[position])


def test_labels_of_the_image_folder_are_those_of_the_dataset(store: SyntheticStore, tmp_path: Path):
    export_dataset(store.path, tmp_path / "export", ExportFormat.IMAGEFOLDER, quiet)
    labels = np.load(tmp_path / "export" / "labels.npz")
    assert set(labels) == {"files", "targets", "soft_labels", "rounds", "losses"}
    for name in ("targets", "soft_labels", "rounds", "losses"):
        assert np.array_equal(labels[name], np.concatenate([store.read(round_, 0, name) for round_ in range(2)]))


def test_a_tar_per_shard_round_groups_each_sample_by_its_key(store: SyntheticStore, tmp_path: Path):
    """As WebDataset reads it: files in order, key up to the first dot, one sample as long as the key stays."""
    out = tmp_path / "export"
    export_dataset(store.path, out, ExportFormat.WEBDATASET, quiet)
    assert [path.name for path in sorted(out.glob("*.tar"))] == ["shard-000000.tar", "shard-000001.tar"]
    with tarfile.open(out / "shard-000001.tar") as archive:
        members = [(*member.name.split(".", 1), archive.extractfile(member).read()) for member in archive]
    keys = list(dict.fromkeys(key for key, _, _ in members))
    assert [key for key, _, _ in members] == [key for key in keys for _ in range(5)]
    for number, key in enumerate(keys):
        sample = {ending: content for name, ending, content in members if name == key}
        assert np.array_equal(pixels(Image.open(io.BytesIO(sample["png"]))), store.read(1, 0, "canvases")[number])
        assert int(sample["cls"]) == 2 * number + 1 == json.loads(sample["json"])["class"]
        assert json.loads(sample["json"])["loss"] == float(store.read(1, 0, "losses")[number])
        for name in ("target", "soft_label"):
            exported = np.load(io.BytesIO(sample[f"{name}.npy"]))
            assert np.array_equal(exported, store.read(1, 0, f"{name}s")[number])


@pytest.mark.parametrize("form", list(ExportFormat))
def test_an_export_says_where_the_images_come_from_and_repeats_to_the_byte(form: ExportFormat, tmp_path: Path):
    store = make(tmp_path / "dataset.zarr", 1)
    for name in ("one", "two"):
        export_dataset(store.path, tmp_path / name, form, quiet)
    first = {str(p.relative_to(tmp_path / "one")): p for p in (tmp_path / "one").rglob("*") if p.is_file()}
    assert all(path.read_bytes() == (tmp_path / "two" / name).read_bytes() for name, path in first.items())
    assert json.loads(first["dataset.json"].read_text())["provenance"] == {"teacher": "abc"}


@pytest.mark.parametrize("form", list(ExportFormat))
def test_an_export_of_a_damaged_dataset_leaves_nothing(form: ExportFormat, tmp_path: Path):
    store = make(tmp_path / "dataset.zarr", 1)
    store.object_paths(1, 0, ("soft_labels",))[0].unlink()
    with pytest.raises(StorageError, match="round 1 shard 0 has no soft_labels"):
        export_dataset(store.path, tmp_path / "export", form, quiet)
    assert [path.name for path in tmp_path.iterdir()] == ["dataset.zarr"]


def test_what_is_there_is_not_overwritten(tmp_path: Path):
    store = make(tmp_path / "dataset.zarr", 1)
    with pytest.raises(StorageError, match="exists: choose a folder that does not"):
        export_dataset(store.path, tmp_path, ExportFormat.IMAGEFOLDER, quiet)


def test_channels_that_png_has_not_are_refused(tmp_path: Path):
    with pytest.raises(StorageError, match="images of 2 channels cannot be PNG"):
        export_dataset(make(tmp_path / "d.zarr", 2).path, tmp_path / "out", ExportFormat.IMAGEFOLDER, quiet)


def test_a_dataset_with_links_to_outside_is_not_exported(tmp_path: Path):
    """Otherwise somebody else's dataset could put a file of yours into what you publish."""
    store = make(tmp_path / "dataset.zarr", 1)
    (path,) = store.object_paths(0, 0, ("canvases",))
    path.rename(tmp_path / "secret")
    path.symlink_to(tmp_path / "secret")
    with pytest.raises(StorageError, match="is a symbolic link to outside of"):
        export_dataset(store.path, tmp_path / "out", ExportFormat.IMAGEFOLDER, quiet)
