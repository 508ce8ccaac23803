"""Shuffled reading through a bounded cache: every image once per epoch, every shard read about once."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from storage.cache import ShardCache
from storage.dataset import DatasetLayout, SyntheticImages, SyntheticStore
from storage.errors import StorageError
from storage.loading import ChosenCanvases, ShardShuffle, local_order, shuffled_loader

LAYOUT = DatasetLayout(rounds=2, shards=5, batch_size=4, canvas=(1, 3, 3), num_classes=2)
SHARD_BYTES = 4 * (9 + 8 + 8 + 4 + 4)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty images, each with its own number as first pixel."""
    store = SyntheticStore.create(tmp_path_factory.mktemp("loading") / "dataset.zarr", LAYOUT)
    for position, (round_, shard) in enumerate(LAYOUT.positions()):
        canvases = np.zeros((4, 1, 3, 3), np.uint8)
        canvases[:, 0, 0, 0] = np.arange(4 * position, 4 * position + 4)
        labels = np.full((4, 2), 0.5, np.float32)
        losses = canvases[:, 0, 0, 0].astype(np.float32)
        arrays = {"canvases": canvases, "targets": labels, "soft_labels": labels, "losses": losses}
        store.write(round_, shard, arrays)
    return store.path


def draws() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def numbers(batch: dict[str, torch.Tensor]) -> list[int]:
    return batch["canvas"][:, 0, 0, 0].tolist()


@pytest.mark.parametrize("shards_held", [1, 3, 10])
def test_an_epoch_has_every_image_once_and_the_next_another_order(dataset: Path, shards_held: int):
    loader = shuffled_loader(SyntheticImages(dataset, shards_held * SHARD_BYTES), 7, draws())
    epochs = [[number for batch in loader for number in numbers(batch)] for _ in range(2)]
    assert len(loader) == 6
    assert [sorted(epoch) for epoch in epochs] == [list(range(40))] * 2
    assert epochs[0] != epochs[1] != list(range(40))


def test_a_batch_has_all_fields_of_the_same_images(dataset: Path):
    images = SyntheticImages(dataset, 2 * SHARD_BYTES)
    batch = next(iter(shuffled_loader(images, 8, draws())))
    assert {name: (tuple(rows.shape), rows.dtype) for name, rows in batch.items()} == {
        "canvas": ((8, 1, 3, 3), torch.uint8),
        "target": ((8, 2), torch.float32),
        "soft_label": ((8, 2), torch.float32),
        "round": ((8,), torch.int32),
        "loss": ((8,), torch.float32),
    }
    assert batch["loss"].tolist() == numbers(batch)
    assert batch["round"].tolist() == [number // 20 for number in numbers(batch)]


@pytest.mark.parametrize(("limit", "slots"), [(0, 1), (SHARD_BYTES, 1), (4 * SHARD_BYTES - 1, 3), (10**9, 10)])
def test_the_cache_keeps_its_limit_and_holds_at_least_one_shard(dataset: Path, limit: int, slots: int):
    assert SyntheticImages(dataset, limit).cache.slots == slots


def test_a_dataset_that_fits_is_read_once(dataset: Path):
    images = SyntheticImages(dataset)
    loader = shuffled_loader(images, 7, draws())
    for _ in range(3):
        assert len(list(loader)) == 6
    assert images.cache.loads == 10


def test_a_larger_one_is_read_about_once_per_epoch(dataset: Path):
    """Only a batch across two groups of shards may read some of them twice."""
    images = SyntheticImages(dataset, 3 * SHARD_BYTES)
    assert len(list(shuffled_loader(images, 4, draws()))) == 10
    assert 10 <= images.cache.loads <= 14


def test_a_dataset_that_fits_is_shuffled_as_a_whole(dataset: Path):
    """Batches as long as a shard are from many shards."""
    for indices in ShardShuffle(SyntheticImages(dataset), 8, draws()):
        assert len({int(index) // 4 for index in indices}) >= 4


@given(st.integers(1, 7), st.lists(st.lists(st.integers(0, 27), min_size=1, max_size=30), max_size=5))
def test_the_cache_gives_what_indexing_the_whole_gives(slots: int, requests: list[list[int]]):
    whole = np.arange(28 * 2).reshape(28, 2)
    cache = ShardCache(7, 4, lambda shard: {"x": whole[4 * shard : 4 * shard + 4]}, slots * 4 * 2 * 8)
    assert cache.slots == slots
    for indices in requests:
        assert torch.equal(cache.gather(torch.tensor(indices))["x"], torch.from_numpy(whole[indices]))


def test_whole_fields_and_single_items_agree_with_batches(dataset: Path):
    images = SyntheticImages(dataset, SHARD_BYTES)
    assert images.canvases[:, 0, 0, 0].tolist() == list(range(40))
    assert int(images[37]["canvas"][0, 0, 0]) == 37
    assert numbers(images[torch.tensor([3, 39, 3])]) == [3, 39, 3]
    for outside in (-1, 40):
        with pytest.raises(IndexError, match="there is no image"):
            images[outside]


def test_damage_is_noticed_when_the_shard_is_read(dataset: Path, tmp_path: Path):
    import shutil

    copy = shutil.copytree(dataset, tmp_path / "dataset.zarr")
    path = copy / "canvases" / "c" / "4" / "0" / "0" / "0"
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(StorageError, match="is damaged"):
        list(shuffled_loader(SyntheticImages(copy), 7, draws()))


def test_chosen_canvases_are_those_of_the_whole(dataset: Path):
    """Of two shards in memory at a time, through a cache that holds nothing else."""
    images = SyntheticImages(dataset, 2 * 4 * 9, arrays=("canvases",))
    indices = torch.randperm(40, generator=draws())[:30]
    chosen = ChosenCanvases(images, indices)
    assert chosen.shape == (30, 1, 3, 3)
    positions = torch.tensor([29, 0, 7, 7])
    assert torch.equal(chosen[positions], images.canvases[indices[positions]])
    assert images.cache.slots == 2
    assert list(images[3]) == ["canvas"]


@given(st.integers(1, 12), st.integers(1, 60))
def test_a_local_order_has_every_image_once_and_needs_few_shards_at_a_time(at_once: int, count: int):
    """At no moment are there more shards that were needed before and will be again than are taken together."""
    shards = torch.randint(10, (count,), generator=draws())
    order = local_order(shards, at_once, draws())
    assert sorted(order.tolist()) == list(range(count))
    needed = shards[order].tolist()
    for moment in range(count):
        assert len(set(needed[: moment + 1]) & set(needed[moment:])) <= at_once


def test_taken_all_at_once_shards_do_not_matter():
    shards = torch.arange(12) // 4
    assert torch.equal(local_order(shards, 3, draws()), torch.randperm(12, generator=draws()))
    assert not torch.equal(local_order(shards, 2, draws()), torch.randperm(12, generator=draws()))


def test_a_dataset_with_shards_in_memory_can_be_given_to_another_process(dataset: Path):
    """Which reads for itself."""
    images = SyntheticImages(dataset)
    images[torch.tensor([3])]
    there = pickle.loads(pickle.dumps(images))
    assert numbers(there[torch.tensor([3, 39])]) == [3, 39]
