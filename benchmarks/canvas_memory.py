"""What a bound on the canvases' memory costs in training, and that it is kept.

    OMP_NUM_THREADS=1 python -m benchmarks.canvas_memory --clock cpu

Random windows of random canvases in shuffled batches, as search and retraining take them, without teacher and network:
from a tensor in memory, and through a reader whose cache holds a part of the shards, which are shuffled half a cache at
a time. Every row is a process of its own; its memory is the peak over what it had before the first canvas.
"""

import argparse
import functools
import json
import multiprocessing
import resource
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.dataset_io import CLASSES, CLOCKS, SEED
from nas_core.seeding import generator
from nas_core.teachers import Teacher
from nas_core.training.batches import SyntheticBatches
from storage.dataset import DatasetLayout, SyntheticImages, SyntheticStore
from storage.loading import ChosenCanvases, local_order

SHARD, CANVAS, WINDOW, BATCH = 50, (3, 256, 256), (3, 224, 224), 64


def write(path: Path, images: int) -> None:
    """A dataset of random canvases."""
    store = SyntheticStore.create(path, DatasetLayout(1, images // SHARD, SHARD, CANVAS, CLASSES))
    draws = np.random.default_rng(SEED)
    labels = np.zeros((SHARD, CLASSES), np.float32)
    for shard in range(store.layout.shards):
        canvases = draws.integers(0, 256, (SHARD, *CANVAS), dtype=np.uint8)
        labelled = {"targets": labels, "soft_labels": labels, "losses": labels[:, 0]}
        store.write(0, shard, {"canvases": canvases, **labelled})


def measure(path: Path, cache_mib: int | None, epochs: int, clock: str) -> dict[str, Any]:
    """Images per second of each epoch and peak memory, with a cache of that size or all in memory."""
    nothing = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 3))
    teacher = Teacher(nothing, WINDOW, (0.5,) * 3, (0.25,) * 3, ("a", "b", "c"))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    images = SyntheticImages(path, (cache_mib or 2**20) * 2**20, arrays=("canvases",))
    chosen = ChosenCanvases(images, torch.arange(len(images)))
    if cache_mib is None:
        batches = SyntheticBatches(chosen[torch.arange(len(images))], teacher, BATCH)
    else:
        order = functools.partial(local_order, torch.arange(len(images)) // SHARD, max(1, images.cache.slots // 2))
        batches = SyntheticBatches(chosen, teacher, BATCH, order=order)
    speeds = []
    for epoch in range(epochs):
        begin = CLOCKS[clock]()
        served = sum(len(batch.images) for batch in batches.epoch(generator(SEED, "benchmark.epoch", epoch)))
        speeds.append(round(served / (CLOCKS[clock]() - begin)))
    return {
        "cache_mib": cache_mib,
        "canvases_mib": round(len(images) * np.prod(CANVAS) / 2**20),
        "images_per_second": speeds,
        "shards_read": images.cache.loads,
        "shards": images.store.layout.shards,
        "peak_mib": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024,
    }


def main() -> None:
    """Print one line of JSON per row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=3000)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--cache-mib", type=int, nargs="+", default=[100, 200])
    parser.add_argument("--clock", choices=list(CLOCKS), default="wall", help="cpu: processor time, on a busy machine")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "dataset.zarr"
        write(path, options.images)
        for cache_mib in [None, *options.cache_mib]:
            with multiprocessing.get_context("spawn").Pool(1) as fresh:
                print(json.dumps(fresh.apply(measure, (path, cache_mib, options.epochs, options.clock))), flush=True)


if __name__ == "__main__":
    main()
