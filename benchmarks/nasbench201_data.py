"""The kinds of data of the benchmark against NAS-Bench-201, as a search sees them."""

import functools
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.common import Canvases, TrueLabels, load_teacher, read_images
from benchmarks.image_sets import CANVAS, with_windows
from nas_core.device import resolve_device
from nas_core.search_spaces import SearchSpace
from nas_core.search_spaces.base import Supernet
from nas_core.seeding import generator
from nas_core.strategies import SearchTask, macs_budget
from nas_core.teachers import Teacher
from nas_core.training.batches import SyntheticBatches
from storage.dataset import SyntheticImages, SyntheticStore
from storage.files import digest_of_file
from storage.layout import RunLayout

KINDS = ("synthetic", "one-hot", "noise", "real", "real-labels")
BATCH = 128
TEMPERATURE = 4.0


@dataclass(frozen=True)
class Data:
    """Where the images come from, and how many a search has.

    Attributes:
        weights: Of the teacher, a ResNet-20.
        images: The tar file of real images.
        synthetic: Directories of dfnas runs, one per seed or one for all.
        one_hot: The same, of the kind of that name.
        count: Images to learn from.
        validation: Images to rate on.
        device: Where to compute.
    """

    weights: Path
    images: Path
    synthetic: tuple[Path, ...]
    one_hot: tuple[Path, ...]
    count: int
    validation: int
    device: str

    def directory(self, kind: str, seed: int) -> Path | None:
        """The run whose images a row of this kind and seed takes; None if it takes no run's."""
        runs = {"synthetic": self.synthetic, "one-hot": self.one_hot}.get(kind)
        return runs[seed % len(runs)] if runs else None

    def digests(self, kind: str, seed: int) -> list[Any]:
        """What the images of a row and their labels depend on."""
        directory = self.directory(kind, seed)
        run = None if directory is None else digest_of_run(directory)
        files = [digest_of_content(file) for file in (self.weights, self.images)]
        device = resolve_device(self.device).type
        return [kind, seed, self.count, self.validation, CANVAS, BATCH, TEMPERATURE, device, run, files]


# Asked for by every row, of the same few files.
digest_of_content = functools.cache(digest_of_file)


@functools.cache
def digest_of_run(directory: Path) -> str:
    """That of the images of a run; ends the program if it has none."""
    provenance = SyntheticStore.open(RunLayout(directory).dataset).provenance
    if "digest" not in provenance:
        sys.exit(f"the dataset of {directory} is not finished; run it with --until synthesis first")
    return provenance["digest"]


class Watched(SearchTask):
    """A search task that remembers the supernet it last made, so that its ranking can be looked at afterwards."""

    def supernet(self, space: SearchSpace | None = None, partial: int = 1) -> Supernet:
        """As `SearchTask.supernet`; one with partial channels is not remembered, as its paths are no architectures."""
        made = super().supernet(space, partial)
        object.__setattr__(self, "made", made if partial == 1 else None)
        return made


def make_task(data: Data, kind: str, seed: int, space: SearchSpace) -> Watched:
    """The data of a kind as a search sees them."""
    device = resolve_device(data.device)
    teacher = load_teacher(data.weights).to(device)
    total = data.count + data.validation
    canvases, classes = make_images(data, kind, total, seed, teacher)
    if len(canvases) < total:
        sys.exit(f"{kind}: {len(canvases)} images are fewer than --count + --validation = {total}; give more")

    def serve(part: slice) -> SyntheticBatches:
        if kind == "real-labels":
            return TrueLabels(canvases[part], classes[part], teacher, BATCH)
        return SyntheticBatches(canvases[part], teacher, BATCH)

    return Watched(
        space=space,
        train=serve(slice(data.count)),
        validation=serve(slice(data.count, total)),
        budget=macs_budget(),
        # Certain labels stay certain at any temperature; at 1 the loss is the cross-entropy.
        temperature=1.0 if kind == "real-labels" else TEMPERATURE,
        seed=seed,
        device=device,
    )


def make_images(data: Data, kind: str, count: int, seed: int, teacher: Teacher) -> tuple[Canvases, Tensor]:
    """Images of a kind in random order, and their true classes where there are any."""
    draws = generator(seed, "benchmark.images")
    if kind == "noise":
        noise = teacher.to_bytes(torch.randn(count, *teacher.input_shape, generator=draws))
        return with_windows(noise), torch.zeros(count).long()
    if kind in ("real", "real-labels"):
        images, labels = read_images(data.images, "train", count, draws)
        order = torch.randperm(len(images), generator=draws)
        return with_windows(images[order]), labels[order]
    directory = data.directory(kind, seed)
    assert directory is not None
    store = SyntheticImages(RunLayout(directory).dataset)
    order = torch.randperm(len(store), generator=draws)[:count]
    return with_windows(store.canvases[order]), store.targets[order].argmax(dim=1)
