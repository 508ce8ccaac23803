"""How fast synthetic images come off the disk, and what each codec costs.

    python -m benchmarks.dataset_io loader
    python -m benchmarks.dataset_io codecs --dataset runs/digits/dataset.zarr

`loader`: `shuffled_loader` over a Zarr dataset against the same loader, in the same order, over memory-mapped numpy
files; after a first pass over each, epochs of the two alternate, so that both meet the same machine. `codecs`: size,
speed of writing, and speed of reading shards in random order, on real synthetic canvases.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import zarr
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from zarr.codecs import BloscCodec, Crc32cCodec, ZstdCodec

from flows.config_file import read_config
from nas_core.seeding import generator
from storage.dataset import ITEMS, DatasetLayout, SyntheticImages, SyntheticStore, inner_chunk
from storage.loading import ShardShuffle, shuffled_loader
from tasks.run import open_run
from tasks.stages import initialise_noise, synthesize

SIZES = ((1_000, 40), (10_000, 40), (1_000, 256), (100_000, 40))
CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.process_time}
CLASSES, CHANNELS, SHARD = 10, 3, 200
SEED = 0
CODECS: dict[str, list[Any]] = {
    "none, crc32c": [Crc32cCodec()],
    "zstd 1, checksum": [ZstdCodec(level=1, checksum=True)],
    "zstd 3, checksum": [ZstdCodec(level=3, checksum=True)],
    "zstd 9, checksum": [ZstdCodec(level=9, checksum=True)],
    "blosc lz4 5, crc32c": [BloscCodec(cname="lz4", clevel=5, shuffle="noshuffle"), Crc32cCodec()],
    "blosc lz4 5 bitshuffle, crc32c": [BloscCodec(cname="lz4", clevel=5, shuffle="bitshuffle"), Crc32cCodec()],
    "blosc zstd 3 bitshuffle, crc32c": [BloscCodec(cname="zstd", clevel=3, shuffle="bitshuffle"), Crc32cCodec()],
}


class MappedImages(Dataset):
    """The same items from memory-mapped numpy files."""

    def __init__(self, folder: Path) -> None:
        self.arrays = {item: np.load(folder / f"{name}.npy", mmap_mode="r") for name, item in ITEMS.items()}

    def __getitem__(self, indices: Tensor) -> dict[str, Tensor]:
        """A batch."""
        rows = indices.numpy()
        return {item: torch.from_numpy(array.take(rows, axis=0)) for item, array in self.arrays.items()}


def write_both(folder: Path, images: int, side: int) -> Path:
    """A Zarr dataset of random images, and numpy files of the same; returns the dataset's path."""
    layout = DatasetLayout(1, images // SHARD, SHARD, (CHANNELS, side, side), CLASSES)
    store = SyntheticStore.create(folder / "dataset.zarr", layout)
    files = {
        name: np.lib.format.open_memmap(folder / f"{name}.npy", "w+", np.dtype(dtype), (images, *shape))
        for name, (shape, dtype, _) in layout.arrays().items()
    }
    draws = np.random.default_rng(SEED)
    for shard in range(layout.shards):
        labels = draws.random((SHARD, CLASSES), dtype=np.float32)
        arrays = {
            "canvases": draws.integers(0, 256, (SHARD, *layout.canvas), dtype=np.uint8),
            "targets": labels,
            "soft_labels": labels,
            "losses": labels[:, 0],
        }
        store.write(0, shard, arrays)
        for name, file in files.items():
            file[shard * SHARD : (shard + 1) * SHARD] = store.read(0, shard, name)
    return store.path


def measure_loader(images: int, side: int, options: argparse.Namespace) -> dict[str, Any]:
    """Images per second of both loaders, and the median ratio of epochs next to each other."""
    clock, batch_size = CLOCKS[options.clock], options.batch_size
    with tempfile.TemporaryDirectory() as folder:
        ours = SyntheticImages(write_both(Path(folder), images, side), int(options.cache_mib * 2**20))
        order = ShardShuffle(ours, batch_size, generator(SEED, "benchmark.order"))
        loaders = {
            "ours": shuffled_loader(ours, batch_size, generator(SEED, "benchmark.order")),
            "mapped": DataLoader(MappedImages(Path(folder)), sampler=order, batch_size=None),
        }
        # Small datasets are gone through several times, so that a measurement is not over in a few milliseconds.
        passes = max(1, 40_000 * 40 * 40 // (images * side * side))
        first = {name: images / _seconds(loader, 1, clock) for name, loader in loaders.items()}
        speeds = [
            {name: passes * images / _seconds(loader, passes, clock) for name, loader in loaders.items()}
            for _ in range(options.rounds)
        ]
    return {
        "images": images,
        "side": side,
        "shards_held": f"{ours.cache.slots}/{ours.store.layout.shards}",
        "first_pass": first,
        **{name: statistics.median(speed[name] for speed in speeds) for name in loaders},
        "ratio": statistics.median(speed["ours"] / speed["mapped"] for speed in speeds),
        "ratios": [round(speed["ours"] / speed["mapped"], 3) for speed in speeds],
    }


def measure_codecs(path: Path, rounds: int, clock: Callable[[], float]) -> list[dict[str, Any]]:
    """Size and speeds of every codec on a dataset's canvases, in its own shards; codecs alternate within a round."""
    images = SyntheticImages(path)
    canvases, rows = images.canvases.numpy(), images.store.layout.batch_size
    seconds: dict[str, dict[str, list[float]]] = {name: {"write": [], "read": []} for name in CODECS}
    sizes: dict[str, int] = {}
    with tempfile.TemporaryDirectory() as folder:
        for round_ in range(rounds):
            order = np.random.default_rng(round_).permutation(len(canvases) // rows)
            for name, codecs in CODECS.items():
                target = Path(folder) / f"{round_}-{list(CODECS).index(name)}"
                array = zarr.create_array(
                    target,
                    shape=canvases.shape,
                    shards=(rows, *canvases.shape[1:]),
                    chunks=(inner_chunk(rows, canvases[0].nbytes), *canvases.shape[1:]),
                    dtype="uint8",
                    compressors=codecs,
                )

                def write(array: zarr.Array = array, order: np.ndarray = order) -> None:
                    for shard in order:
                        array[shard * rows : (shard + 1) * rows] = canvases[shard * rows : (shard + 1) * rows]

                def read(array: zarr.Array = array, order: np.ndarray = order) -> None:
                    for shard in order:
                        array[shard * rows : (shard + 1) * rows]

                seconds[name]["write"].append(_timed(write, clock))
                seconds[name]["read"].append(_timed(read, clock))
                sizes[name] = sum(file.stat().st_size for file in target.rglob("*") if file.is_file())
    mebibytes = canvases.nbytes / 2**20
    return [
        {
            "codec": name,
            "size": sizes[name] / canvases.nbytes,
            "write_mib_s": mebibytes / statistics.median(seconds[name]["write"]),
            "read_mib_s": mebibytes / statistics.median(seconds[name]["read"]),
        }
        for name in CODECS
    ]


def small_dataset(config: Path, folder: Path) -> Path:
    """Synthesise one round of a config's shards, for the codecs."""
    run = open_run(read_config(config, ["synthesis.rounds=1"]), str(folder / "run"))
    noise = initialise_noise.work(run, "noise", "")
    for shard in range(run.config.synthesis.shards):
        synthesize.work(run, f"synthesis-{shard}", "", noise, round=0, shard=shard)
    return run.layout.dataset


def _seconds(loader: DataLoader, passes: int, clock: Callable[[], float]) -> float:
    def go() -> None:
        for _ in range(passes):
            for _ in loader:
                pass

    return _timed(go, clock)


def _timed(action: Callable[[], None], clock: Callable[[], float]) -> float:
    begin = clock()
    action()
    return clock() - begin


def results(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """The measurements that were asked for."""
    if options.what == "loader":
        for images, side in SIZES:
            if images <= options.max_images:
                yield measure_loader(images, side, options)
        return
    with tempfile.TemporaryDirectory() as folder:
        path = options.dataset or small_dataset(options.config, Path(folder))
        yield from measure_codecs(path, options.rounds, CLOCKS[options.clock])


def main() -> None:
    """Print one line of JSON per measurement."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["loader", "codecs"])
    parser.add_argument("--rounds", type=int, default=7, help="measurements of each, alternating")
    parser.add_argument("--clock", choices=list(CLOCKS), default="wall", help="cpu: processor time, on a busy machine")
    parser.add_argument("--batch-size", type=int, default=256, help="images per batch of the loaders")
    parser.add_argument("--cache-mib", type=float, default=2048, help="memory of our loader for shards, in MiB")
    parser.add_argument("--max-images", type=int, default=100_000, help="leave out larger datasets")
    parser.add_argument("--dataset", type=Path, help="dataset.zarr of a run, for the codecs [default: make one]")
    parser.add_argument("--config", type=Path, default=Path("configs/digits.yaml"), help="what to make it from")
    options = parser.parse_args()
    for result in results(options):
        print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
