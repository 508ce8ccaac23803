"""Shuffled batches of a dataset that may be larger than memory."""

from collections.abc import Iterator

import torch
from jaxtyping import Int64
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from storage.dataset import SyntheticImages


class ShardShuffle(Sampler[Int64[Tensor, " batch"]]):
    """Batches of indices in random order, such that every shard is read about once per epoch.

    Shards are shuffled and taken as many at a time as the cache holds; within these, images are shuffled. If the cache
    holds the whole dataset, this is a uniformly random order.

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
        rows = self.images.store.layout.batch_size
        shards = torch.randperm(len(self.images) // rows, generator=self.generator)
        order = []
        for held in shards.split(self.images.cache.slots):
            indices = (held[:, None] * rows + torch.arange(rows)).flatten()
            order.append(indices[torch.randperm(len(indices), generator=self.generator)])
        yield from torch.cat(order).split(self.batch_size)


def shuffled_loader(images: SyntheticImages, batch_size: int, generator: torch.Generator) -> DataLoader:
    """A loader of whole batches (see `SyntheticImages`) in the order of `ShardShuffle`, in this process.

    After the first pass over a dataset that fits into the cache, a batch is one copy from memory, which worker
    processes would only slow down; each would hold a cache of its own, too.
    """
    return DataLoader(images, sampler=ShardShuffle(images, batch_size, generator), batch_size=None)
