"""Where canvases come from decides about speed alone."""

import itertools
import threading

import pytest
import torch
from torch import Tensor

from nas_core.seeding import generator
from nas_core.training import canvases as module
from nas_core.training.augmentation import Augmentation
from nas_core.training.batches import Batch, SyntheticBatches
from nas_core.training.canvases import Canvases


class Reader:
    """Reads what it is asked for from a tensor that stands for a disk, and remembers from which thread."""

    def __init__(self, stored: Tensor) -> None:
        self._stored = stored
        self.shape = tuple(stored.shape)
        self.threads: list[str] = []

    def __getitem__(self, indices: Tensor) -> Tensor:
        self.threads.append(threading.current_thread().name)
        return self._stored[indices]


@pytest.fixture
def stored() -> Tensor:
    return torch.randint(256, (21, 3, 11, 10), dtype=torch.uint8, generator=generator(0, "test.canvases"))


def repeated_draws() -> torch.Generator:
    return generator(0, "test.repeated")


def passes(canvases: Canvases, teacher, **options) -> list[Batch]:
    """Every way through the images."""
    batches = SyntheticBatches(canvases, teacher, 4, **options)
    repeated = batches.fixed_repeatedly(repeated_draws)
    return [
        *batches.epoch(generator(0, "test.epoch")),
        *batches.fixed(),
        *batches.fresh(generator(0, "test.fresh")),
        *repeated,
        *repeated,
    ]


def assert_same(ours: list[Batch], theirs: list[Batch]) -> None:
    assert len(ours) == len(theirs) == 5 + 4 * 6
    for one, other in zip(ours, theirs, strict=True):
        assert torch.equal(one.images, other.images)


@pytest.mark.parametrize(
    "augmentation", [Augmentation(), Augmentation(crop_scale=0.3, cutout=3, mixup=0.7, color_jitter=0.4)]
)
def test_a_reader_gives_the_batches_of_a_tensor_from_a_thread_of_its_own(teacher, stored, augmentation):
    reader = Reader(stored)
    ours, theirs = (passes(source, teacher, augmentation=augmentation) for source in (reader, stored))
    assert_same(ours, theirs)
    for one, other in zip(ours, theirs, strict=True):
        assert torch.equal(one.teacher_logits, other.teacher_logits)
    assert threading.current_thread().name not in reader.threads
    for first, second in zip(ours[-12:-6], ours[-6:], strict=True):
        assert torch.equal(first.images, second.images)


def test_only_so_much_is_read_ahead_and_nothing_once_nobody_asks(teacher, stored, monkeypatch):
    monkeypatch.setattr(module, "READ_AHEAD_BYTES", 3 * stored[:2].nbytes)
    reader = Reader(stored)
    batches = SyntheticBatches(reader, teacher, 2)
    first = list(itertools.islice(batches.epoch(generator(0, "test.epoch")), 2))
    assert len(first) == 2
    for thread in threading.enumerate():
        if thread.name in reader.threads:
            thread.join(timeout=30)
            assert not thread.is_alive()
    assert len(reader.threads) <= 2 + 3


def test_the_teacher_labels_repeated_passes_once(teacher, stored, monkeypatch):
    asked = []
    logits = type(teacher).logits
    monkeypatch.setattr(type(teacher), "logits", lambda self, images: asked.append(1) or logits(self, images))
    repeated = SyntheticBatches(Reader(stored), teacher, 4).fixed_repeatedly(repeated_draws)
    for _ in range(3):
        assert sum(len(batch.images) for batch in repeated) == 21
    assert len(asked) == 6


def test_an_error_of_the_reader_reaches_whoever_trains(teacher, stored):
    class Damaged(Reader):
        def __getitem__(self, indices: Tensor) -> Tensor:
            raise OSError("shard 3 is damaged")

    with pytest.raises(OSError, match="shard 3 is damaged"):
        next(SyntheticBatches(Damaged(stored), teacher, 4).epoch(generator(0, "test.epoch")))


def test_an_order_of_ones_own_is_kept(teacher, stored):
    """Canvases of one brightness each, brightest first."""
    plain = torch.arange(21, dtype=torch.uint8).reshape(-1, 1, 1, 1).expand(stored.shape)
    batches = SyntheticBatches(plain, teacher, 7, order=lambda _: torch.arange(20, -1, -1))
    brightness = torch.cat([batch.images[:, 0, 0, 0] for batch in batches.epoch(generator(0, "test.epoch"))])
    assert len(brightness) == 21
    assert (brightness.diff() < 0).all()
