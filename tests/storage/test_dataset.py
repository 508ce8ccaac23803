"""The Zarr dataset: whole shards, nothing invented, damage noticed."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import zarr
from torch.utils.data import DataLoader

from storage.dataset import DatasetLayout, SyntheticImages, SyntheticStore
from storage.errors import StorageError

LAYOUT = DatasetLayout(rounds=2, shards=3, batch_size=4, canvas=(1, 6, 5), num_classes=3)


def shard_arrays(seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        "canvases": rng.integers(0, 256, (4, 1, 6, 5), dtype=np.uint8),
        "targets": rng.random((4, 3), dtype=np.float32),
        "soft_labels": rng.random((4, 3), dtype=np.float32),
        "losses": rng.random(4, dtype=np.float32),
    }


@pytest.fixture
def store(tmp_path: Path) -> SyntheticStore:
    store = SyntheticStore.create(tmp_path / "dataset.zarr", LAYOUT)
    for round_ in range(2):
        for shard in range(3):
            store.write(round_, shard, shard_arrays(10 * round_ + shard))
    return store


def test_one_shard_round_is_one_object_per_array(store: SyntheticStore):
    objects = {p for name in LAYOUT.arrays() for p in (store.path / name / "c").rglob("*") if p.is_file()}
    expected = [store.object_paths(r, s) for r in range(2) for s in range(3)]
    assert objects == {path for paths in expected for path in paths}
    assert len(objects) == 2 * 3 * len(LAYOUT.arrays())


def test_images_come_back_in_order_with_their_labels(store: SyntheticStore):
    images = SyntheticImages(store.path)
    assert len(images) == LAYOUT.images == 24
    item = images[3 * 4 + 1 * 4 + 2]  # round 1, shard 1, image 2
    written = shard_arrays(11)
    assert torch.equal(item["canvas"], torch.from_numpy(written["canvases"][2]))
    assert torch.equal(item["soft_label"], torch.from_numpy(written["soft_labels"][2]))
    assert item["round"] == 1
    assert item["loss"] == float(written["losses"][2])
    batch = next(iter(DataLoader(images, batch_size=5)))
    assert batch["canvas"].shape == (5, 1, 6, 5)


def test_any_zarr_reader_sees_the_dataset(store: SyntheticStore):
    group = zarr.open_group(store.path, mode="r")
    assert group["canvases"].shape == (24, 1, 6, 5)  # type: ignore[union-attr]
    assert np.array_equal(group["rounds"][:], [0] * 12 + [1] * 12)  # type: ignore[index]


@pytest.mark.parametrize("name", list(LAYOUT.arrays()))
def test_a_missing_or_empty_object_is_an_error_not_a_fill_value(store: SyntheticStore, name: str):
    (path,) = store.object_paths(1, 2, (name,))
    path.write_bytes(b"")
    with pytest.raises(StorageError, match=f"round 1 shard 2 has no {name}"):
        SyntheticImages(store.path)
    path.unlink()
    with pytest.raises(StorageError, match=f"round 1 shard 2 has no {name}"):
        store.read(1, 2, name)


@pytest.mark.parametrize("position", [10, -30])
def test_a_flipped_bit_is_noticed(store: SyntheticStore, position: int):
    (path,) = store.object_paths(0, 1, ("canvases",))
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(StorageError, match="is damaged"):
        store.read(0, 1, "canvases")


def test_the_same_content_has_the_same_digest_in_another_store(store: SyntheticStore, tmp_path: Path):
    other = SyntheticStore.create(tmp_path / "other.zarr", LAYOUT)
    assert other.write(1, 2, shard_arrays(12)) == store.digest(1, 2)
    assert store.digest(1, 1) != store.digest(1, 2)


def test_create_keeps_what_is_there_and_refuses_another_layout(store: SyntheticStore):
    assert SyntheticStore.create(store.path, LAYOUT).digest(0, 0) == store.digest(0, 0)
    other = DatasetLayout(rounds=1, shards=3, batch_size=4, canvas=(1, 6, 5), num_classes=3)
    with pytest.raises(StorageError, match="another layout"):
        SyntheticStore.create(store.path, other)


def test_what_is_no_dataset_is_named(tmp_path: Path):
    with pytest.raises(StorageError, match="is no synthetic dataset"):
        SyntheticStore.open(tmp_path / "nowhere.zarr")


def test_a_shard_of_the_wrong_shape_is_refused(store: SyntheticStore):
    arrays = shard_arrays(0) | {"targets": np.zeros((3, 3), np.float32)}
    with pytest.raises(ValueError, match="targets has shape"):
        store.write(0, 0, arrays)


def test_provenance_is_kept_in_the_attributes(store: SyntheticStore):
    assert store.provenance == {}
    store.annotate({"teacher": "abc"})
    assert SyntheticStore.open(store.path).provenance == {"teacher": "abc"}


def test_a_dataset_from_before_there_were_checksums_opens_and_is_sealed_when_annotated(store: SyntheticStore):
    path = store.path / "zarr.json"
    metadata = json.loads(path.read_text())
    layout = metadata["attributes"]["layout"]
    path.write_text(json.dumps(metadata | {"attributes": {"id": "0-0", "layout": layout}}))
    SyntheticStore.open(store.path).annotate({"teacher": "abc"})
    assert SyntheticStore.open(store.path).provenance == {"teacher": "abc"}
    path.write_text(path.read_text().replace("abc", "abd"))
    with pytest.raises(StorageError, match="missing or damaged"):
        SyntheticStore.open(store.path)


def test_damaged_metadata_is_mended_and_the_images_are_kept(store: SyntheticStore):
    before = {path: path.read_bytes() for path in store.path.rglob("*") if path.is_file()}
    for name in ("zarr.json", "targets/zarr.json"):
        (store.path / name).write_text("{")
    SyntheticStore.create(store.path, LAYOUT)
    assert {path: path.read_bytes() for path in store.path.rglob("*") if path.is_file()} == before


def test_a_damaged_object_can_be_written_over(store: SyntheticStore):
    """Zarr itself reads the old object first, and fails."""
    (path,) = store.object_paths(1, 2, ("canvases",))
    sound = path.read_bytes()
    path.write_bytes(sound[: len(sound) // 2])
    store.write(1, 2, shard_arrays(12))
    assert path.read_bytes() == sound
