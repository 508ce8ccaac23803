"""The synthetic dataset in Zarr v3: one array per kind, one shard object per array and synthesis shard-round."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import zarr
from jaxtyping import Float, Int32, Int64, UInt8
from torch import Tensor
from torch.utils.data import Dataset
from zarr.codecs import ZstdCodec
from zarr.core.buffer import Buffer
from zarr.errors import GroupNotFoundError
from zarr.storage import FsspecStore, MemoryStore

from storage.cache import DEFAULT_CACHE_BYTES, ShardCache
from storage.errors import NoDatasetError, StorageError
from storage.files import digest_of, files_with_content, sealed, unsealed, write_bytes
from storage.locations import OPTIONS, is_remote

METADATA = "zarr.json"
INNER_CHUNK_BYTES = 2**20
ATTRIBUTES = {"layout", "provenance", "id"}  # the last one in datasets of old versions only
ITEMS = {
    "canvases": "canvas", "targets": "target", "soft_labels": "soft_label", "rounds": "round", "losses": "loss",
}  # fmt: skip
"""What an item of each array is called."""


@dataclass(frozen=True)
class DatasetLayout:
    """Sizes of a dataset.

    Attributes:
        rounds: Rounds of label calibration; all are kept.
        shards: Shards of each round.
        batch_size: Images of each shard.
        canvas: (channels, height, width) of a canvas.
        num_classes: Length of a target.
    """

    rounds: int
    shards: int
    batch_size: int
    canvas: tuple[int, int, int]
    num_classes: int

    @property
    def images(self) -> int:
        """All images."""
        return self.rounds * self.shards * self.batch_size

    def position(self, round_: int, shard: int) -> int:
        """Number of a shard-round along the first axis, counted in shard objects."""
        return round_ * self.shards + shard

    def positions(self) -> list[tuple[int, int]]:
        """Round and shard of every shard-round, in stored order."""
        return [(round_, shard) for round_ in range(self.rounds) for shard in range(self.shards)]

    def arrays(self) -> dict[str, tuple[tuple[int, ...], str, Any]]:
        """Shape of one image, type, and the fill value that marks what was never written, of each array."""
        return {
            "canvases": (self.canvas, "uint8", 0),
            "targets": ((self.num_classes,), "float32", float("nan")),
            "soft_labels": ((self.num_classes,), "float32", float("nan")),
            "rounds": ((), "int32", -1),
            "losses": ((), "float32", float("nan")),
        }


class SyntheticStore:
    """A dataset on disk. Shards are written whole, each by one writer; reading never invents missing ones.

    Use `create` or `open`.
    """

    def __init__(self, path: Path, group: zarr.Group) -> None:
        self.path = path
        self._group = group
        self._arrays: dict[str, zarr.Array] = {}
        attributes = unsealed(dict(group.attrs))
        if strange := attributes.keys() - ATTRIBUTES:
            raise ValueError(f"unknown attributes {strange}")
        layout = attributes["layout"]
        self.layout = DatasetLayout(**{**layout, "canvas": tuple(layout["canvas"])})
        self.provenance: dict[str, Any] = attributes.get("provenance", {})
        """Where the images come from; empty before `annotate`."""

    @classmethod
    def create(cls, path: Path, layout: DatasetLayout) -> "SyntheticStore":
        """An empty dataset; if one of the same layout is there, that one, with damaged metadata mended.

        Raises:
            StorageError: If a dataset of another layout is in the way.
        """
        metadata = _metadata(layout)
        try:
            if cls.open(path).layout != layout:
                raise StorageError(f"{path} holds a dataset of another layout; choose another run directory")
            del metadata[METADATA]  # It may say already where the images come from.
        except NoDatasetError:
            pass
        # The group's own comes last, so that a kill in between leaves none.
        for name in sorted(metadata, key=lambda name: name == METADATA):
            write_bytes(path / name, metadata[name])
        return cls.open(path)

    @classmethod
    def open(cls, path: Path) -> "SyntheticStore":
        """The dataset at a path.

        Raises:
            NoDatasetError: If there is none.
        """
        store = FsspecStore.from_url(str(path), storage_options=OPTIONS) if is_remote(path) else path
        try:
            return cls(path, zarr.open_group(store, mode="r+"))
        except (GroupNotFoundError, FileNotFoundError, KeyError, TypeError, ValueError) as error:
            raise NoDatasetError(
                f"{path} is no synthetic dataset (missing or damaged): run again to make it"
            ) from error

    def write(self, round_: int, shard: int, arrays: dict[str, np.ndarray]) -> str:
        """Write one shard-round whole.

        Args:
            round_: Number of the round.
            shard: Number of the shard.
            arrays: "canvases", "targets", "soft_labels" and "losses", each of length batch_size.

        Returns:
            The digest of the content, as `digest` gives it.
        """
        count = self.layout.batch_size
        complete = {**arrays, "rounds": np.full(count, round_, dtype=np.int32)}
        for path in self.object_paths(round_, shard):
            path.unlink(missing_ok=True)  # Zarr would read it first, and fail if it is damaged.
        for name, (shape, dtype, _) in self.layout.arrays().items():
            if complete[name].shape != (count, *shape):
                raise ValueError(f"{name} has shape {complete[name].shape}, the dataset takes {(count, *shape)}")
            self._array(name)[self._rows(round_, shard)] = complete[name].astype(dtype, copy=False)
        return self.digest(round_, shard)

    def read(self, round_: int, shard: int, name: str) -> np.ndarray:
        """One array of one shard-round.

        Raises:
            StorageError: If its object is missing, empty or fails its checksum.
        """
        self.check_present(round_, shard, (name,))
        (path,) = self.object_paths(round_, shard, (name,))
        try:
            return np.asarray(self._array(name)[self._rows(round_, shard)])
        except (RuntimeError, ValueError) as error:
            raise StorageError(f"{path} is damaged ({error}): run again to make it anew") from error

    def check_present(self, round_: int, shard: int, names: Sequence[str] | None = None) -> None:
        """Check that one shard-round has its objects, of some arrays or of all, without reading them.

        Raises:
            StorageError: If one is missing or empty, which Zarr would read as fill values.
        """
        for path in self.object_paths(round_, shard, names):
            if not path.is_file() or path.stat().st_size == 0:
                raise self._missing(round_, shard, path)

    def check_complete(self) -> None:
        """The same for all shard-rounds, from one listing.

        Raises:
            StorageError: Naming the first that is missing.
        """
        there = files_with_content(self.path)
        for position in self.layout.positions():
            for path in self.object_paths(*position):
                if str(path.relative_to(self.path)) not in there:
                    raise self._missing(*position, path)

    def _missing(self, round_: int, shard: int, path: Path) -> StorageError:
        name = str(path.relative_to(self.path)).partition("/")[0]
        return StorageError(f"round {round_} shard {shard} has no {name} ({path}): run again to make it")

    def digest(self, round_: int, shard: int) -> str:
        """SHA-256 of the content of one shard-round, independent of its compression."""
        names = sorted(self.layout.arrays())
        return digest_of(*(self.read(round_, shard, name).tobytes() for name in names))

    def object_paths(self, round_: int, shard: int, names: Sequence[str] | None = None) -> list[Path]:
        """Files that hold one shard-round, one per array."""
        position = self.layout.position(round_, shard)
        shapes = {name: shape for name, (shape, _, _) in self.layout.arrays().items()}
        return [self.path.joinpath(name, "c", str(position), *("0" for _ in shapes[name])) for name in names or shapes]

    def annotate(self, provenance: dict[str, Any]) -> None:
        """Record in the attributes where the images come from."""
        self._group.update_attributes(sealed(unsealed(dict(self._group.attrs)) | {"provenance": provenance}))
        self.provenance = provenance

    def _array(self, name: str) -> zarr.Array:
        """An array, whose metadata is read and checked once."""
        if name not in self._arrays:
            self._arrays[name] = self._checked_array(name)
        return self._arrays[name]

    def _checked_array(self, name: str) -> zarr.Array:
        shape, dtype, _ = self.layout.arrays()[name]
        try:
            array = self._group[name]
        except (KeyError, TypeError, ValueError) as error:
            raise StorageError(f"{self.path / name} is missing or damaged ({error}): run again to mend it") from error
        expected = (self.layout.images, *shape)
        if not isinstance(array, zarr.Array) or array.shape != expected or array.dtype != dtype:
            raise StorageError(f"{self.path / name} is no array of {expected} {dtype}: run again to mend it")
        return array

    def _rows(self, round_: int, shard: int) -> slice:
        start = self.layout.position(round_, shard) * self.layout.batch_size
        return slice(start, start + self.layout.batch_size)


class SyntheticImages(Dataset):
    """A committed dataset as a PyTorch dataset, in bytes, in the order round, shard, image.

    Item i is a dict of tensors: "canvas" (uint8, [channels, height, width]), "target" and "soft_label" (float32,
    [classes]), "round" (int32) and "loss" (float32). A tensor of indices gives a batch of the same in one go. Shards
    are read whole, on first use, and kept in a cache of bounded size; `storage.loading.shuffled_loader` goes through
    them in an order that reads each once per epoch.

    Args:
        path: The dataset's Zarr group.
        cache_bytes: Memory for shards, in bytes; at least one shard is held.
        arrays: The arrays that items are of, such as "canvases".

    Raises:
        StorageError: If any shard-round is missing or, when it is read, damaged.
    """

    def __init__(
        self, path: Path, cache_bytes: int = DEFAULT_CACHE_BYTES, arrays: Sequence[str] = tuple(ITEMS)
    ) -> None:
        self.store = SyntheticStore.open(path)
        self._positions = self.store.layout.positions()
        self.store.check_complete()
        self._cache_bytes = cache_bytes
        self._arrays = arrays

    def __getstate__(self) -> dict[str, Any]:
        """Without what is in memory: a process that gets this reads for itself."""
        return {name: value for name, value in vars(self).items() if name != "cache"}

    def __len__(self) -> int:
        """Number of images."""
        return self.store.layout.images

    def __getitem__(self, index: int | Int64[Tensor, " batch"]) -> dict[str, Tensor]:
        """The image with its labels, or a batch of them; see the class."""
        if isinstance(index, Tensor):
            return self.cache.gather(index)
        if not 0 <= index < len(self):
            raise IndexError(f"there is no image {index}; the dataset has {len(self)}")
        return {name: rows[0] for name, rows in self.cache.gather(torch.tensor([index])).items()}

    @cached_property
    def cache(self) -> ShardCache:
        """Shards in memory."""
        return ShardCache(len(self._positions), self.store.layout.batch_size, self._shard, self._cache_bytes)

    @cached_property
    def canvases(self) -> UInt8[Tensor, "images channels height width"]:
        """All images; the whole array in memory, whatever the cache."""
        return self._whole("canvases")

    @cached_property
    def targets(self) -> Float[Tensor, "images classes"]:
        """What each image was optimised for."""
        return self._whole("targets")

    @cached_property
    def soft_labels(self) -> Float[Tensor, "images classes"]:
        """The teacher's predictions of each image."""
        return self._whole("soft_labels")

    @cached_property
    def rounds(self) -> Int32[Tensor, " images"]:
        """The round of each image."""
        return self._whole("rounds")

    @cached_property
    def losses(self) -> Float[Tensor, " images"]:
        """The loss of each image at the end, in nats."""
        return self._whole("losses")

    def _whole(self, name: str) -> Tensor:
        return torch.from_numpy(np.concatenate([self.store.read(*position, name) for position in self._positions]))

    def _shard(self, index: int) -> dict[str, np.ndarray]:
        return {ITEMS[name]: self.store.read(*self._positions[index], name) for name in self._arrays}


def _metadata(layout: DatasetLayout) -> dict[str, bytes]:
    """The metadata files of an empty dataset, by name."""
    objects: dict[str, Buffer] = {}
    attributes = sealed({"layout": {**asdict(layout), "canvas": list(layout.canvas)}, "provenance": {}})
    group = zarr.create_group(MemoryStore(objects), zarr_format=3, attributes=attributes)
    for name, (shape, dtype, fill) in layout.arrays().items():
        image_bytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
        group.create_array(
            name,
            shape=(layout.images, *shape),
            shards=(layout.batch_size, *shape),
            chunks=(inner_chunk(layout.batch_size, image_bytes), *shape),
            dtype=dtype,
            fill_value=fill,
            # Level 1: canvases hardly compress; the codec is there for its checksum.
            compressors=[ZstdCodec(level=1, checksum=True)],
            # Otherwise a shard of zeros would leave no object, and could not be told from a missing one.
            config={"write_empty_chunks": True},
        )
    return {name: content.to_bytes() for name, content in objects.items()}


def inner_chunk(batch_size: int, image_bytes: int) -> int:
    """Images per chunk inside a shard object: the most that stay under a mebibyte and divide the batch."""
    fitting = max(1, INNER_CHUNK_BYTES // image_bytes)
    return max(count for count in range(1, batch_size + 1) if batch_size % count == 0 and count <= fitting)
