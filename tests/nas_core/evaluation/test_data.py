"""Real images: what is served, and one sentence for everything that can be wrong with them."""

import errno
import struct
import zlib
from urllib.error import URLError

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torchvision import datasets

from nas_core.errors import InputError
from nas_core.evaluation.data import LabelledImages, fit
from nas_core.settings.data import FolderSpec, NpzSpec, TorchvisionSpec, data_sources
from nas_core.teachers.teacher import Teacher


def make_teacher(shape=(3, 4, 4), names=("cat", "dog")):
    return Teacher(nn.Linear(1, 1), shape, mean=(0.5,) * shape[0], std=(0.25,) * shape[0], class_names=names)


def build(spec, **teacher):
    return data_sources.build(spec, teacher=make_teacher(**teacher))


def fails(spec, match, **teacher):
    """Building fails with one sentence that matches."""
    with pytest.raises(InputError, match=match) as caught:
        build(spec, **teacher)
    assert "\n" not in str(caught.value)
    assert "; " in str(caught.value), "says what to do"


# --- what the networks see ---


def test_black_and_white_are_normalised_with_the_teachers_statistics():
    """(0 - 0.5) / 0.25 = -2 and (1 - 0.5) / 0.25 = 2."""
    pixels = (torch.zeros(3, 4, 4, dtype=torch.uint8), torch.full((3, 4, 4), 255, dtype=torch.uint8))
    images = LabelledImages("two images", torch.tensor([0, 1]), pixels.__getitem__, make_teacher())
    [(x, labels)] = images.batches(batch_size=8)
    assert x.amin((1, 2, 3)).tolist() == x.amax((1, 2, 3)).tolist() == [-2.0, 2.0]
    assert labels.tolist() == [0, 1]


def test_the_last_smaller_batch_is_served():
    image = torch.zeros(3, 4, 4, dtype=torch.uint8)
    images = LabelledImages("five images", torch.tensor([0, 1, 0, 1, 1]), lambda _: image, make_teacher())
    assert [labels.tolist() for _, labels in images.batches(2)] == [[0, 1], [0, 1], [1]]
    assert len(images) == 5


def test_an_image_of_the_right_shape_is_left_alone():
    image = torch.randint(256, (3, 4, 6), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(fit(image, (3, 4, 6)), image)


def test_gray_becomes_rgb_by_repetition_and_back_by_luminance():
    """The luminance of red 200 is 0.299 * 200 = 59.8."""
    gray = torch.full((1, 2, 2), 100, dtype=torch.uint8)
    assert torch.equal(fit(gray, (3, 2, 2)), gray.expand(3, 2, 2))
    red = torch.tensor([200, 0, 0], dtype=torch.uint8).reshape(3, 1, 1).expand(3, 2, 2)
    assert fit(red, (1, 2, 2)).unique().tolist() == [60]


def test_a_wide_image_is_cropped_to_its_centre():
    """Height fits already, so nothing is scaled and the middle columns 2..5 of 8 remain."""
    image = torch.arange(8, dtype=torch.uint8).expand(1, 4, 8)
    assert fit(image, (1, 4, 4))[0, 0].tolist() == [2, 3, 4, 5]


def test_resize_makes_the_shorter_side_that_long_before_the_crop():
    """A 4 x 8 image with columns of 0 and 255, doubled to 8 x 16: its central 4 x 4 still spans both halves."""
    image = torch.tensor([0] * 4 + [255] * 4, dtype=torch.uint8).expand(1, 4, 8)
    half = fit(image, (1, 4, 4), resize=8)[0, 0]
    assert half.shape == (4,)
    assert (half[:1] == 0).all()
    assert (half[-1:] == 255).all()


@pytest.mark.parametrize("size", [(3, 9), (9, 3), (2, 2), (31, 17)])
def test_any_size_ends_as_the_teachers(size):
    image = torch.zeros(1, *size, dtype=torch.uint8)
    assert fit(image, (3, 5, 7)).shape == (3, 5, 7)


@pytest.mark.parametrize("label", [-1, 2])
def test_a_label_beyond_the_teachers_classes_is_an_error(label):
    with pytest.raises(InputError, match="the teacher's 2 classes are 0 to 1"):
        LabelledImages("x", torch.tensor([0, label]), lambda _: torch.zeros(0), make_teacher())


def test_resize_below_the_input_is_an_error():
    with pytest.raises(InputError, match=r"resize = 3 is smaller .* at least 4"):
        LabelledImages("x", torch.tensor([0]), lambda _: torch.zeros(0), make_teacher(), resize=3)


# --- folder ---


def make_folder(root, colours):
    """One folder per name with one uniformly coloured 5 x 4 PNG."""
    for name, colour in colours.items():
        (root / name).mkdir(parents=True)
        Image.new("RGB", (5, 4), colour).save(root / name / "one.png")
    return FolderSpec(path=root)


def first_channel(images):
    """The red byte of every image, in order, with its label."""
    [(x, labels)] = images.batches(len(images))
    return list(zip(((x[:, 0, 0, 0] * 0.25 + 0.5) * 255).round().int().tolist(), labels.tolist(), strict=True))


def test_folders_named_like_classes_are_matched_by_name(tmp_path):
    spec = make_folder(tmp_path / "val", {"cat": (10, 0, 0), "dog": (20, 0, 0)})
    images = build(spec, names=("dog", "bird", "cat"))
    assert first_channel(images) == [(10, 2), (20, 0)]
    assert images.source == "folder val"


def test_other_folder_names_count_in_alphabetical_order(tmp_path):
    spec = make_folder(tmp_path, {"n02": (20, 0, 0), "n01": (10, 0, 0), ".cache": (0, 0, 0)})
    assert first_channel(build(spec)) == [(10, 0), (20, 1)]


def test_folders_named_by_index_hold_the_class_of_that_index(tmp_path):
    """In alphabetical order 10 and 11 come before 2; where a name of one's own is a number, it counts as that name."""
    spec = make_folder(tmp_path / "all", {str(index): (10 * index, 0, 0) for index in range(12)})
    names = tuple("abcdefghijkl")
    assert sorted(first_channel(build(spec, names=names))) == [(10 * index, index) for index in range(12)]
    some = make_folder(tmp_path / "some", {"007": (7, 0, 0), "10": (10, 0, 0)})
    assert first_channel(build(some, names=names)) == [(7, 7), (10, 10)]
    named = make_folder(tmp_path / "named", {"1": (1, 0, 0), "0": (0, 0, 0)})
    assert first_channel(build(named, names=("1", "0"))) == [(0, 1), (1, 0)]
    fails(
        make_folder(tmp_path / "beyond", {"1": 0, "12": 0}),
        "'12', but the teacher's class indices are 0 to 11",
        names=names,
    )


def test_files_become_gray_for_a_gray_teacher(tmp_path):
    images = build(make_folder(tmp_path, {"cat": (9, 9, 9), "dog": (8, 8, 8)}), shape=(1, 4, 4))
    assert first_channel(images) == [(9, 0), (8, 1)]


def test_folder_errors(tmp_path):
    fails(FolderSpec(path=tmp_path / "nowhere"), "is no folder")
    fails(FolderSpec(path=tmp_path), "has no sub-folders")
    fails(make_folder(tmp_path / "typo", {"cat": 0, "dgo": 0}), "sub-folder 'dgo' that is no class")
    fails(make_folder(tmp_path / "few", {"n01": 0}), "1 sub-folders, but the teacher has 2 classes")
    fails(make_folder(tmp_path / "twice", {"cat": 0}), "more than one class 'cat'", names=("cat", "cat"))
    spec = make_folder(tmp_path / "four", {"cat": 0})
    fails(spec, "takes 4 channels", shape=(4, 4, 4))
    (spec.path / "cat" / "one.png").unlink()
    fails(spec, "has no image files")


def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def with_broken_chunk(png):
    """The first half of the pixels is in one chunk, and what follows is none."""
    return png[:33] + chunk(b"IDAT", png[41:47]) + bytes(12)


def with_many_pixels(png):
    """The header promises 50,000 x 50,000."""
    return png[:8] + chunk(b"IHDR", struct.pack(">2I", 50_000, 50_000) + png[24:29]) + png[33:]


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (lambda _: b"not a picture", "cannot identify"),
        (lambda content: content[:40], "cannot identify"),
        (with_broken_chunk, "broken PNG file"),
        (with_many_pixels, "decompression bomb"),
    ],
    ids=["text", "half", "chunk", "pixels"],
)
def test_a_broken_file_is_named(tmp_path, fault, reason):
    spec = make_folder(tmp_path, {"cat": 0, "dog": 0})
    file = tmp_path / "cat" / "one.png"
    file.write_bytes(fault(file.read_bytes()))
    with pytest.raises(InputError, match=rf"one\.png cannot be read as an image \(.*{reason}.*\); repair or remove"):
        list(build(spec).batches(1))


def test_a_disk_that_fails_is_no_fault_of_the_image(tmp_path, monkeypatch):
    """The system's own errors may pass: a task is tried again."""

    def fails_now(_):
        raise OSError(errno.EIO, "Input/output error")

    images = build(make_folder(tmp_path, {"cat": 0, "dog": 0}))
    monkeypatch.setattr(Image, "open", fails_now)
    with pytest.raises(OSError, match="Input/output error"):
        list(images.batches(1))


# --- npz ---


def make_npz(path, **arrays):
    np.savez(path, **arrays)
    return NpzSpec(path=path)


GRAY = np.arange(2, dtype=np.uint8).reshape(2, 1, 1) * np.ones((2, 4, 4), dtype=np.uint8)
LABELS = np.array([1, 0])


@pytest.mark.parametrize(
    "images",
    [GRAY, GRAY[:, None], GRAY[..., None], GRAY[:, None].repeat(3, 1), GRAY[..., None].repeat(3, 3)],
    ids=["N,H,W", "N,1,H,W", "N,H,W,1", "N,3,H,W", "N,H,W,3"],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_every_layout_gives_the_same_images(tmp_path, images, channels):
    source = build(make_npz(tmp_path / "test.npz", images=images, labels=LABELS), shape=(channels, 4, 4))
    assert first_channel(source) == [(0, 1), (1, 0)]
    assert source.source == "npz test.npz"


def test_building_reads_no_pixel(tmp_path, monkeypatch):
    spec = make_npz(tmp_path / "test.npz", images=GRAY, labels=LABELS)
    read = []
    monkeypatch.setattr(
        np.lib.npyio.NpzFile, "__getitem__", lambda _, key: read.append(key) or {"labels": LABELS, "images": GRAY}[key]
    )
    source = build(spec)
    assert read == ["labels"]
    list(source.batches(1))
    assert read == ["labels", "images"], "and then all of them at once"


@pytest.mark.parametrize(
    ("arrays", "match"),
    [
        ({"images": GRAY}, "no array `labels`"),
        ({"images": GRAY / 255, "labels": LABELS}, "`images` .* is of type float64; store it as uint8"),
        ({"images": GRAY, "labels": LABELS * 1.0}, "`labels` .* is of type float64; store it as integer"),
        ({"images": GRAY, "labels": np.array([None, 1])}, "`labels` .* is of type object"),
        ({"images": GRAY[0], "labels": LABELS}, r"shape \[4, 4\], which does not fit a teacher of 3 channels"),
        ({"images": np.zeros((2, 2, 4, 4), np.uint8), "labels": LABELS}, r"shape \[2, 2, 4, 4\], which does not fit"),
        ({"images": GRAY, "labels": LABELS[:1]}, r"`labels` .* has shape \[1\], but there are 2 images"),
        ({"images": GRAY[:0], "labels": LABELS[:0]}, "holds no images"),
        ({"images": GRAY, "labels": LABELS + 1}, "labels from 1 to 2"),
    ],
)
def test_npz_errors(tmp_path, arrays, match):
    fails(make_npz(tmp_path / "test.npz", **arrays), match)


def test_a_file_that_is_no_npz_is_an_error(tmp_path):
    fails(NpzSpec(path=tmp_path / "nowhere.npz"), r"is no \.npz file")
    np.save(tmp_path / "one.npy", GRAY)
    fails(NpzSpec(path=tmp_path / "one.npy"), r"is no \.npz file")


def test_gray_arrays_do_not_fit_a_four_channel_teacher(tmp_path):
    fails(make_npz(tmp_path / "test.npz", images=GRAY, labels=LABELS), "does not fit", shape=(4, 4, 4))


# --- torchvision ---


def make_mnist(root, count):
    """Files of FashionMNIST with `count` images: the test part's pixels are 0, 1, ..., its labels 9, 8, ...

    Those of the training part are 100, 101, ... and 0, 1, ...
    """
    raw = root / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    index = np.arange(count, dtype=np.uint8)
    for part, values, labels in (("train", 100 + index, index), ("t10k", index, 9 - index)):
        pixels = values.reshape(-1, 1, 1) * np.ones((count, 28, 28), np.uint8)
        (raw / f"{part}-images-idx3-ubyte").write_bytes(struct.pack(">4i", 2051, count, 28, 28) + pixels.tobytes())
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">2i", 2049, count) + labels.tobytes())


TEN = tuple("0123456789")


@pytest.mark.parametrize(
    ("split", "served"), [("test", [(0, 9), (1, 8), (2, 7)]), ("train", [(100, 0), (101, 1), (102, 2)])]
)
def test_torchvision_serves_its_split(tmp_path, split, served):
    make_mnist(tmp_path, 3)
    spec = TorchvisionSpec(dataset="FashionMNIST", root=tmp_path, split=split)
    images = build(spec, names=TEN, shape=(1, 28, 28))
    assert first_channel(images) == served
    assert images.source == f"torchvision FashionMNIST, {split} split"


def test_torchvisions_classes_are_told_by_their_names(tmp_path):
    """Of a teacher of the same classes in reverse order, the last class is the first; other names change nothing."""
    make_mnist(tmp_path, 3)
    spec = TorchvisionSpec(dataset="FashionMNIST", root=tmp_path)
    reverse = tuple(reversed(datasets.FashionMNIST.classes))
    assert [label for _, label in first_channel(build(spec, names=reverse, shape=(1, 28, 28)))] == [0, 1, 2]
    fewer = (*reverse[:-1], "other")
    assert [label for _, label in first_channel(build(spec, names=fewer, shape=(1, 28, 28)))] == [9, 8, 7]


def test_torchvision_errors(tmp_path):
    spec = TorchvisionSpec(dataset="FashionMNIST", root=tmp_path)
    fails(spec, "no complete FashionMNIST .* download: true", names=TEN)
    make_mnist(tmp_path, 3)
    fails(spec, "has 10 classes, but the teacher has 2")


@pytest.mark.parametrize("error", [RuntimeError("Error downloading t10k\nTried mirrors"), URLError("no such host")])
def test_a_download_that_fails_is_a_sentence(tmp_path, monkeypatch, error):
    def offline(_):
        raise error

    monkeypatch.setattr("torchvision.datasets.FashionMNIST.download", offline)
    spec = TorchvisionSpec(dataset="FashionMNIST", root=tmp_path, download=True)
    fails(spec, r"cannot fetch FashionMNIST .* \((Error downloading t10k|<urlopen error no such host>)\)", names=TEN)


# --- content ---


def test_repaired_labels_or_images_under_the_same_name_have_another_fingerprint(tmp_path):
    path, original = tmp_path / "test.npz", {"images": GRAY, "labels": LABELS}
    contents = [original, original, original | {"labels": 1 - LABELS}, original | {"images": GRAY + 1}]
    first, again, relabelled, repainted = (build(make_npz(path, **arrays)).fingerprint() for arrays in contents)
    assert first == again
    assert len({first, relabelled, repainted}) == 3
    folder = make_folder(tmp_path / "val", {"cat": (10, 0, 0), "dog": (20, 0, 0)})
    before = build(folder).fingerprint()
    assert build(folder).fingerprint() == before
    (folder.path / "cat" / "one.png").rename(folder.path / "dog" / "two.png")
    Image.new("RGB", (5, 4)).save(folder.path / "cat" / "one.png")
    assert build(folder).fingerprint() != before


# --- registry ---


def test_every_source_is_registered_and_described():
    assert data_sources.names() == ["folder", "npz", "torchvision"]
    for name in data_sources.names():
        assert all(field.description for key, field in data_sources.spec(name).model_fields.items() if key != "name")
