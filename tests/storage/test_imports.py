"""Images from outside: exports come back bit for bit, plain folders are fitted, and nothing in either is trusted."""

import errno
import json
import struct
import tarfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from storage.dataset import DatasetLayout, SyntheticStore
from storage.errors import StorageError
from storage.export import ExportFormat, export_dataset
from storage.imports import ExportedImages, PlainImages, open_images

LAYOUT = DatasetLayout(2, 2, 3, (3, 5, 4), 12)


@pytest.fixture
def store(tmp_path: Path) -> SyntheticStore:
    """Two rounds of two shards of three images."""
    store = SyntheticStore.create(tmp_path / "dataset.zarr", LAYOUT)
    draws = np.random.default_rng(0)
    for round_, shard in LAYOUT.positions():
        labels = draws.random((2, 3, 12), dtype=np.float32)
        targets, soft_labels = labels / labels.sum(2, keepdims=True)
        canvases = draws.integers(0, 256, (3, 3, 5, 4), dtype=np.uint8)
        losses = draws.random(3, dtype=np.float32)
        arrays = {"canvases": canvases, "targets": targets, "soft_labels": soft_labels, "losses": losses}
        store.write(round_, shard, arrays)
    store.annotate({"teacher": "abc"})
    return store


def exported(store: SyntheticStore, form: ExportFormat) -> Path:
    out = store.path.with_name("export")
    export_dataset(store.path, out, form, lambda *_: None)
    return out


@pytest.mark.parametrize("form", list(ExportFormat))
def test_an_export_is_read_back_bit_for_bit(store: SyntheticStore, form: ExportFormat):
    images = open_images(exported(store, form))
    assert isinstance(images, ExportedImages)
    assert (images.layout, images.provenance) == (LAYOUT, {"teacher": "abc"})
    for position in LAYOUT.positions():
        arrays = images.read(*position)
        assert set(arrays) == {"canvases", "targets", "soft_labels", "losses"}
        for name, array in arrays.items():
            assert array.dtype == store.read(*position, name).dtype
            assert np.array_equal(array, store.read(*position, name))


def test_an_image_of_another_size_is_refused_before_it_is_decoded(store: SyntheticStore):
    out = exported(store, ExportFormat.IMAGEFOLDER)
    path = next(out.glob("*/round-001-shard-00001-*.png"))
    Image.new("RGB", (4000, 3000)).save(path)
    with pytest.raises(StorageError, match=r"round 1 shard 1 .* is RGB of \(4000, 3000\), the canvas is \(3, 5, 4\)"):
        open_images(out).read(1, 1)


def test_names_that_lead_out_of_the_folder_are_refused(store: SyntheticStore):
    out = exported(store, ExportFormat.IMAGEFOLDER)
    labels = dict(np.load(out / "labels.npz"))
    for name in ("../secret.png", "/secret.png"):
        labels["files"] = np.array([name, *labels["files"][1:]])
        np.savez(out / "labels.npz", **labels)
        with pytest.raises(StorageError, match="which is outside"):
            open_images(out).read(0, 0)


def test_pickles_among_the_labels_are_not_read(store: SyntheticStore):
    out = exported(store, ExportFormat.IMAGEFOLDER)
    labels = dict(np.load(out / "labels.npz"))
    np.savez(out / "labels.npz", **{**labels, "files": np.array([{}] * 12, dtype=object)})
    with pytest.raises(StorageError, match="no array of 12 rows of numbers or names"):
        open_images(out).read(0, 0)


def test_labels_that_are_no_probabilities_are_refused(store: SyntheticStore):
    out = exported(store, ExportFormat.IMAGEFOLDER)
    labels = dict(np.load(out / "labels.npz"))
    labels["soft_labels"][0, 0] = np.nan
    np.savez(out / "labels.npz", **labels)
    with pytest.raises(StorageError, match=r"soft_labels of round 0 shard 0 .* no class probabilities"):
        open_images(out).read(0, 0)


def test_a_missing_or_truncated_archive_is_named(store: SyntheticStore):
    out = exported(store, ExportFormat.WEBDATASET)
    path = out / "shard-000003.tar"
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(StorageError, match="round 1 shard 1"):
        open_images(out).read(1, 1)
    path.unlink()
    with pytest.raises(StorageError, match=r"neither labels.npz nor shard-000003.tar"):
        open_images(out)


def test_an_archive_of_other_images_is_refused(store: SyntheticStore):
    out = exported(store, ExportFormat.WEBDATASET)
    with tarfile.open(out / "shard-000000.tar", "w"):
        pass
    with pytest.raises(StorageError, match=r"round 0 shard 0 .*round-000-shard-00000-00000\.png"):
        open_images(out).read(0, 0)


@pytest.mark.parametrize(
    "layout", [{}, {"rounds": 1}, {"rounds": 0, "shards": 1, "batch_size": 1, "canvas": [3, 1, 1], "num_classes": 1}]
)
def test_a_description_that_no_dataset_has_is_refused(tmp_path: Path, layout: dict[str, object]):
    (tmp_path / "dataset.json").write_text(json.dumps({"layout": layout, "provenance": {}}))
    with pytest.raises(StorageError, match=r"dataset\.json"):
        open_images(tmp_path)


def test_links_out_of_the_folder_are_refused(tmp_path: Path):
    (tmp_path / "images" / "cat").mkdir(parents=True)
    Image.new("L", (2, 2)).save(tmp_path / "secret.png")
    (tmp_path / "images" / "cat" / "one.png").symlink_to(tmp_path / "secret.png")
    with pytest.raises(StorageError, match="symbolic link to outside"):
        open_images(tmp_path / "images")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A gray, a wide and a JPEG image of two classes, beside files that are no images."""
    for name in ("cat", "dog"):
        (tmp_path / "images" / name).mkdir(parents=True)
    Image.fromarray(np.arange(16, dtype=np.uint8).reshape(4, 4)).save(tmp_path / "images" / "cat" / "b.png")
    Image.new("RGB", (8, 4), (255, 0, 0)).save(tmp_path / "images" / "cat" / "a.png")
    Image.new("RGB", (4, 4), (0, 255, 0)).save(tmp_path / "images" / "dog" / "c.JPG", "JPEG")
    (tmp_path / "images" / "dog" / "notes.txt").write_text("none")
    return tmp_path / "images"


def test_a_plain_folder_is_read_in_order_with_its_classes(folder: Path):
    images = open_images(folder)
    assert isinstance(images, PlainImages)
    assert images.files == ("cat/a.png", "cat/b.png", "dog/c.JPG")
    assert images.classes == ("cat", "cat", "dog")
    assert images.common_size() is None


def test_images_of_the_canvas_are_left_alone_and_others_fitted(folder: Path):
    images = open_images(folder)
    assert isinstance(images, PlainImages)
    gray = images.read([1], (1, 4, 4))
    assert np.array_equal(gray[0, 0], np.arange(16).reshape(4, 4))
    colour = images.read([0, 2, 1], (3, 4, 4))
    assert colour.shape == (3, 3, 4, 4)
    assert colour[0].mean(axis=(1, 2)).tolist() == [255, 0, 0]
    assert np.array_equal(colour[2], np.broadcast_to(gray[0], (3, 4, 4)))


def test_an_image_of_another_shape_is_cropped_in_the_middle(folder: Path):
    """A ramp of eight columns, whose height is the canvas's: columns 2 to 5 stay, as they are."""
    ramp = np.tile(10 * np.arange(8, dtype=np.uint8), (4, 1))
    Image.fromarray(ramp).save(folder / "cat" / "a.png")
    images = open_images(folder)
    assert isinstance(images, PlainImages)
    assert np.array_equal(images.read([0], (1, 4, 4))[0, 0], ramp[:, 2:6])


@pytest.mark.parametrize("side", [9_500, 14_000])
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_an_image_that_promises_more_pixels_than_89_million_is_refused_by_name(folder: Path, side: int):
    """A small file with another header; Pillow itself warns of the first size, and refuses the second."""
    path = folder / "cat" / "a.png"
    content = bytearray(path.read_bytes())
    content[16:24] = struct.pack(">II", side, side)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    path.write_bytes(content)
    images = open_images(folder)
    assert isinstance(images, PlainImages)
    for read in (images.common_size, lambda: images.read([0], (1, 4, 4))):
        with pytest.raises(StorageError, match=rf"a\.png .*({side}x{side}|{side**2}) pixels"):
            read()


def test_a_file_that_is_no_image_is_named(folder: Path):
    (folder / "cat" / "b.png").write_bytes(b"GIF89a")
    images = open_images(folder)
    assert isinstance(images, PlainImages)
    with pytest.raises(StorageError, match=r"b\.png is no image that can be read"):
        images.read([1], (1, 4, 4))


def test_a_truncated_image_is_named_and_a_disk_that_fails_is_not_blamed_on_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
):
    """Pillow says of the one "image file is truncated", without its name; the other may pass by itself."""
    path = folder / "dog" / "c.JPG"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(path, "JPEG")
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    images = open_images(folder)
    assert isinstance(images, PlainImages)
    with pytest.raises(StorageError, match=r"c\.JPG is no image that can be read: .*truncated"):
        images.read([2], (3, 4, 4))

    def fails(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(Image, "open", fails)
    with pytest.raises(OSError, match="Input/output error"):
        images.read([2], (3, 4, 4))


def test_a_truncated_image_of_an_export_is_named(store: SyntheticStore):
    out = exported(store, ExportFormat.IMAGEFOLDER)
    path = next(out.glob("*/round-001-shard-00001-*.png"))
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(StorageError, match=rf"round 1 shard 1 .*{path.name} is no image that can be read"):
        open_images(out).read(1, 1)


def test_other_names_have_another_listing(folder: Path):
    before = open_images(folder).listing
    (folder / "cat" / "a.png").rename(folder / "dog" / "a.png")
    assert open_images(folder).listing != before


def test_a_folder_without_images_is_refused(tmp_path: Path):
    with pytest.raises(StorageError, match="no images in folders of classes"):
        open_images(tmp_path)
    with pytest.raises(StorageError, match="is no folder"):
        open_images(tmp_path / "nowhere")
