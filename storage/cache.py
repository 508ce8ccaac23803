"""Whole shards of a dataset in memory, as many as a limit allows; the least recently used makes room for the next."""

import threading
from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

DEFAULT_CACHE_BYTES = 2**31


class ShardCache:
    """Rows of shards of equal length, gathered by index.

    Shards lie in slots of one tensor per array, so that a batch is one indexed copy however many shards it is from.
    Threads may share it; they take turns.

    Args:
        shards: Number of shards.
        rows: Rows of each.
        load: Reads one shard: its arrays, each of length `rows`, by name.
        limit: Memory for the slots, in bytes; there is at least one slot.

    Attributes:
        slots: How many shards are held at once.
        loads: How many shards have been read so far.
    """

    def __init__(self, shards: int, rows: int, load: Callable[[int], dict[str, np.ndarray]], limit: int) -> None:
        self._rows = rows
        self._load = load
        first = load(0)
        self.slots = min(shards, max(1, limit // sum(array.nbytes for array in first.values())))
        # Memory that is never written to is never taken from the machine.
        self._pools = {name: np.empty((self.slots * rows, *a.shape[1:]), a.dtype) for name, a in first.items()}
        self._slot_of = torch.full((shards,), -1)
        self._shard_in = torch.full((self.slots,), -1)
        self._last_use = torch.zeros(self.slots, dtype=torch.int64)
        self._clock = 0
        self._turn = threading.Lock()
        self.loads = 0
        self._store(0, 0, first)

    def gather(self, indices: Int64[Tensor, " batch"]) -> dict[str, Tensor]:
        """Copies of the rows at `indices`, counted over all shards in order, by array name."""
        with self._turn:
            return self._gather(indices)

    def _gather(self, indices: Int64[Tensor, " batch"]) -> dict[str, Tensor]:
        if self.loads == len(self._slot_of) == self.slots:
            return self._copy(indices)  # All are there, each in the slot of its own number.
        shards = indices // self._rows
        needed = shards.unique()
        if len(needed) <= self.slots:
            return self._take(needed, shards, indices)
        # More shards than the cache holds: some at a time.
        result: dict[str, Tensor] = {}
        for part in needed.split(self.slots):
            chosen = torch.isin(shards, part)
            for name, rows in self._take(part, shards[chosen], indices[chosen]).items():
                whole = result.setdefault(name, rows.new_empty((len(indices), *rows.shape[1:])))
                whole[chosen] = rows
        return result

    def _take(self, needed: Tensor, shards: Tensor, indices: Tensor) -> dict[str, Tensor]:
        self._clock += 1
        present = self._slot_of[needed]
        self._last_use[present[present >= 0]] = self._clock
        for shard in needed[present < 0].tolist():
            slot = shard if self.slots == len(self._slot_of) else int(self._last_use.argmin())
            self._store(slot, shard, self._load(shard))
        return self._copy(self._slot_of[shards] * self._rows + indices % self._rows)

    def _copy(self, rows: Tensor) -> dict[str, Tensor]:
        return {name: torch.from_numpy(pool.take(rows.numpy(), axis=0)) for name, pool in self._pools.items()}

    def _store(self, slot: int, shard: int, content: dict[str, np.ndarray]) -> None:
        if self._shard_in[slot] >= 0:
            self._slot_of[self._shard_in[slot]] = -1
        for name, pool in self._pools.items():
            pool[slot * self._rows : (slot + 1) * self._rows] = content[name]
        self._slot_of[shard], self._shard_in[slot], self._last_use[slot] = slot, shard, self._clock
        self.loads += 1
