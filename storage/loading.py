"""Shuffled batches of a dataset that may be larger than memory."""

from collections.abc import Iterator

import torch
from jaxtyping import Int64, UInt8
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from storage.dataset import SyntheticImages


def local_order(shards: Int64[Tensor, " images"], at_once: int, generator: torch.Generator) -> Int64[Tensor, " images"]:
    """A random order of images, such that every shard is needed once, and then for a while.

    Shards are shuffled and taken some at a time; within these, images are shuffled. If all are taken at once, any order
    is as likely as any other.

    Args:
        shards: Which shard each image is in.
        at_once: Shards that are taken together.
        generator: CPU generator.
    """
    order = torch.randperm(len(shards), generator=generator)
    count = int(shards.max()) + 1
    if at_once >= count:
        return order
    group = torch.randperm(count, generator=generator)[shards] // at_once
    return order[group[order].argsort(stable=True)]


class ChosenCanvases:
    """The canvases of some images, read when they are asked for, through the dataset's cache; threads may share it.

    Args:
        images: The dataset.
        indices: Which of its images, in which order.

    Attributes:
        shape: (images, channels, height, width).
    """

    def __init__(self, images: SyntheticImages, indices: Int64[Tensor, " images"]) -> None:
        self._cache = images.cache
        self._indices = indices
        self.shape = (len(indices), *images.store.layout.canvas)

    def __getitem__(self, positions: Int64[Tensor, " batch"]) -> UInt8[Tensor, "batch channels height width"]:
        """The canvases at some positions among the chosen."""
        return self._cache.gather(self._indices[positions])["canvas"]


class ShardShuffle(Sampler[Int64[Tensor, " batch"]]):
    """Batches of indices in random order, such that every shard is read about once per epoch.

    The order is `local_order` of as many shards at a time as the cache holds.

    Args:
        images: The dataset.
        batch_size: Images per batch; the last batch of an epoch may be smaller.
        generator: CPU generator; each epoch draws anew.
    """

    def __init__(self, images: SyntheticImages, batch_size: int, generator: torch.Generator) -> None:
        self.images = images
        self.batch_size = batch_size
        self.generator = generator

    def __len__(self) -> int:
        """Batches of an epoch."""
        return -(-len(self.images) // self.batch_size)

    def __iter__(self) -> Iterator[Int64[Tensor, " batch"]]:
        """One epoch."""
        shards = torch.arange(len(self.images)) // self.images.store.layout.batch_size
        yield from local_order(shards, self.images.cache.slots, self.generator).split(self.batch_size)


def shuffled_loader(images: SyntheticImages, batch_size: int, generator: torch.Generator) -> DataLoader:
    """A loader of whole batches (see `SyntheticImages`) in the order of `ShardShuffle`, in this process.

    After the first pass over a dataset that fits into the cache, a batch is one copy from memory, which worker
    processes would only slow down; each would hold a cache of its own, too.
    """
    return DataLoader(images, sampler=ShardShuffle(images, batch_size, generator), batch_size=None)
