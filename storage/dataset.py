"""The synthetic dataset in Zarr v3: one array per kind, one shard object per array and synthesis shard-round."""

import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import zarr
from torch.utils.data import Dataset
from zarr.codecs import ZstdCodec
from zarr.errors import GroupNotFoundError

from storage.errors import StorageError
from storage.files import digest_of

INNER_CHUNK_BYTES = 2**20


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
        layout = dict(group.attrs)["layout"]
        self.layout = DatasetLayout(**{**layout, "canvas": tuple(layout["canvas"])})  # type: ignore[arg-type]

    @classmethod
    def create(cls, path: Path, layout: DatasetLayout) -> "SyntheticStore":
        """An empty dataset with an identity of its own; the one that is there if it has the same layout.

        Raises:
            StorageError: If a dataset of another layout is in the way.
        """
        if path.exists():
            existing = cls.open(path)
            if existing.layout != layout:
                raise StorageError(f"{path} holds a dataset of another layout; choose another run directory")
            return existing
        # Built aside and renamed, so that a kill in between leaves no half-made group.
        aside = path.with_name(f".{path.name}.{uuid.uuid4()}.partial")
        group = zarr.create_group(aside, zarr_format=3, attributes={"id": str(uuid.uuid4()), "layout": asdict(layout)})
        for name, (shape, dtype, fill) in layout.arrays().items():
            image_bytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
            group.create_array(
                name,
                shape=(layout.images, *shape),
                shards=(layout.batch_size, *shape),
                chunks=(_inner_chunk(layout.batch_size, image_bytes), *shape),
                dtype=dtype,
                fill_value=fill,
                # Level 1: canvases hardly compress; the codec is there for its checksum.
                compressors=[ZstdCodec(level=1, checksum=True)],
                # Otherwise a shard of zeros would leave no object, and could not be told from a missing one.
                config={"write_empty_chunks": True},
            )
        aside.rename(path)
        return cls.open(path)

    @classmethod
    def open(cls, path: Path) -> "SyntheticStore":
        """The dataset at a path.

        Raises:
            StorageError: If there is none.
        """
        try:
            group = zarr.open_group(path, mode="r+")
            return cls(path, group)
        except (GroupNotFoundError, FileNotFoundError, KeyError, ValueError) as error:
            raise StorageError(
                f"{path} is no synthetic dataset (missing or damaged): delete it and run again"
            ) from error

    @property
    def id(self) -> str:
        """Identity of this store: a new store never matches results cached for an old one."""
        return str(self._group.attrs["id"])

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
        (path,) = self.object_paths(round_, shard, (name,))
        if not path.is_file() or path.stat().st_size == 0:
            raise StorageError(f"round {round_} shard {shard} has no {name} ({path}): run again to make it")
        try:
            return np.asarray(self._array(name)[self._rows(round_, shard)])
        except (RuntimeError, ValueError) as error:
            raise StorageError(f"{path} is damaged ({error}): run again to make it anew") from error

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
        self._group.update_attributes({"provenance": provenance})

    @property
    def provenance(self) -> dict[str, Any]:
        """Where the images come from; empty before `annotate`."""
        return dict(self._group.attrs.get("provenance", {}))  # type: ignore[arg-type]

    def _array(self, name: str) -> zarr.Array:
        array = self._group[name]
        assert isinstance(array, zarr.Array)
        return array

    def _rows(self, round_: int, shard: int) -> slice:
        start = self.layout.position(round_, shard) * self.layout.batch_size
        return slice(start, start + self.layout.batch_size)


class SyntheticImages(Dataset):
    """A committed dataset as a PyTorch dataset, held in memory as bytes.

    Item i is a dict of tensors: "canvas" (uint8, [channels, height, width]), "target" and "soft_label" (float32,
    [classes]), "round" (int32) and "loss" (float32). The fields of all images are the attributes `canvases`,
    `targets`, `soft_labels`, `rounds` and `losses`, in the order round, shard, image.

    Args:
        path: The dataset's Zarr group.

    Raises:
        StorageError: If any shard-round is missing or damaged.
    """

    def __init__(self, path: Path) -> None:
        store = SyntheticStore.open(path)
        self.canvases = self._all(store, "canvases")
        self.targets = self._all(store, "targets")
        self.soft_labels = self._all(store, "soft_labels")
        self.rounds = self._all(store, "rounds")
        self.losses = self._all(store, "losses")

    def __len__(self) -> int:
        """Number of images."""
        return len(self.canvases)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        """The image with its labels; see the class."""
        return {
            "canvas": self.canvases[index],
            "target": self.targets[index],
            "soft_label": self.soft_labels[index],
            "round": self.rounds[index],
            "loss": self.losses[index],
        }

    @staticmethod
    def _all(store: SyntheticStore, name: str) -> torch.Tensor:
        layout = store.layout
        pieces = [store.read(r, s, name) for r in range(layout.rounds) for s in range(layout.shards)]
        return torch.from_numpy(np.concatenate(pieces))


def _inner_chunk(batch_size: int, image_bytes: int) -> int:
    """Images per chunk inside a shard object: the most that stay under a mebibyte and divide the batch."""
    fitting = max(1, INNER_CHUNK_BYTES // image_bytes)
    return max(count for count in range(1, batch_size + 1) if batch_size % count == 0 and count <= fitting)
