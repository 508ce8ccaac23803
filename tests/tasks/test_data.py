"""Search and retraining within a memory for canvases: the bytes do not depend on it."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from nas_core.seeding import generator
from nas_core.training.batches import Batch
from storage.manifests import read_manifest
from tasks import data
from tasks.data import batches, load_images
from tasks.run import Run

SHARD_GIB = 8 * 10 * 10 / 2**30


def with_memory(run: Run, gib: float) -> Run:
    execution = run.config.execution.model_copy(update={"canvas_memory_gib": gib})
    return run.model_copy(update={"config": run.config.model_copy(update={"execution": execution})})


def passes(run: Run) -> Iterator[Batch]:
    images, split = load_images(run)
    served = batches(run, images, split.train, 4)
    yield from served.epoch(generator(0, "test.epoch"))
    yield from served.fixed()


@pytest.mark.parametrize("shards_shuffled_together", [1, 3, 100])
def test_batches_do_not_depend_on_the_memory(finished: Run, monkeypatch, shards_shuffled_together: int):
    monkeypatch.setattr(data, "SHUFFLED_BYTES", shards_shuffled_together * 800)
    whole, streamed = (list(passes(with_memory(finished, gib))) for gib in (1.0, 1.5 * SHARD_GIB))
    assert len(whole) == len(streamed) > 6
    for ours, theirs in zip(streamed, whole, strict=True):
        assert torch.equal(ours.images, theirs.images)


def test_in_a_larger_dataset_every_shard_is_read_about_once_per_pass(finished: Run, monkeypatch):
    """With memory for two of four shards, which are shuffled one at a time; the first is read to learn its size."""
    monkeypatch.setattr(data, "SHUFFLED_BYTES", 800)
    run = with_memory(finished, 2.5 * SHARD_GIB)
    images, split = load_images(run)
    served = batches(run, images, split.train, 2)
    assert not isinstance(served.canvases, Tensor)
    before = images.cache.loads
    assert len(list(served.epoch(generator(0, "test.epoch")))) == len(served)
    assert images.cache.loads - before <= 5
    before = images.cache.loads
    assert len(list(served.fixed())) >= len(served)
    assert images.cache.loads - before <= 4


def test_search_and_retraining_end_alike_with_little_memory(finished: Run, complete, tmp_path: Path):
    shutil.copytree(finished.directory, tmp_path / "run")
    little = with_memory(finished, SHARD_GIB).model_copy(update={"directory": str(tmp_path / "run")})
    pieces = ("search", "retrain", "evaluate")
    for piece in pieces:
        little.layout.manifest(piece).unlink()
    made = complete(little)
    for piece in pieces:
        there = read_manifest(finished.layout.manifest(piece))
        assert there is not None
        assert made[piece].digest == there.digest
