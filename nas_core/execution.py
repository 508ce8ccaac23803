"""Where synthesis shards run: one after the other, or side by side on one machine or many.

No choice here changes what is computed, except for `threads`: a sum split over another number of threads is rounded
otherwise. At equal threads every engine gives the same bytes, where all machines compute in the same precision: `auto`
asks each of them.
"""

import os
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from nas_core.registry import Spec

MOST_TASKS = 2000


class _Engine(Spec):
    """What all engines share."""

    threads: int | None = Field(
        default=None,
        ge=1,
        description="CPU threads of each shard, and of the generator's learning; null: see the engine",
    )
    most_tasks: int = Field(
        default=MOST_TASKS,
        ge=1,
        description="tasks up to which each shard and round is one of Prefect's; of more, several shards share one",
    )
    canvas_memory_gib: float | None = Field(
        default=None,
        gt=0,
        description="memory that the canvases may take in search and retraining, in GiB; more than fit are read from "
        "the dataset again in every epoch. null: a quarter of the machine's, divided among the workers",
    )

    def shard_threads(self) -> int | None:
        """CPU threads of each shard; None: as many as its process has."""
        return self.threads

    def shards_at_once(self) -> int:
        """Shards that share the memory of a device of this machine."""
        return 1


class _Workers(_Engine):
    workers: int = Field(default=2, ge=1, description="shards at the same time")

    def shard_threads(self) -> int | None:
        """As set; otherwise the machine's cores, divided among the workers."""
        return self.threads or max(1, (os.cpu_count() or 1) // self.workers)

    def shards_at_once(self) -> int:
        """As many as there are workers."""
        return self.workers


class Local(_Engine):
    """One shard after the other in the flow's own process, each with all threads."""

    name: Literal["local"] = "local"


class Processes(_Workers):
    """Several processes on this machine, which divide its cores among them."""

    name: Literal["processes"] = "processes"
    devices: tuple[int, ...] = Field(
        default=(),
        description="CUDA devices, by number among those that CUDA_VISIBLE_DEVICES shows: each process sees one of "
        "them, in turn; empty: every process sees all",
    )

    def shards_at_once(self) -> int:
        """The workers of the busiest device."""
        return -(-self.workers // (len(self.devices) or 1))


class Dask(_Workers):
    """Workers of a Dask cluster (pip install dfnas[dask])."""

    name: Literal["dask"] = "dask"
    address: str | None = Field(
        default=None,
        description="scheduler of a running cluster, such as tcp://host:8786; null: a cluster of `workers` processes "
        "on this machine, for as long as the shards take",
    )

    def shards_at_once(self) -> int:
        """As many as there are workers; elsewhere, at least one."""
        return 1 if self.address else self.workers


class Ray(_Workers):
    """Workers of a Ray cluster (pip install dfnas[ray])."""

    name: Literal["ray"] = "ray"
    address: str | None = Field(
        default=None,
        description="a running cluster, such as auto or ray://host:10001; null: one with `workers` CPUs on this "
        "machine, for as long as the shards take",
    )
    gpus: float = Field(default=0.0, ge=0, description="GPUs that a shard needs; Ray shows it no others")

    def shards_at_once(self) -> int:
        """As many as a GPU is shared by; elsewhere, at least one."""
        if self.gpus:
            return max(1, int(1 / self.gpus))
        return 1 if self.address else self.workers


Execution = Local | Processes | Dask | Ray
ExecutionSpec = Annotated[
    Annotated[Execution, Field(discriminator="name")],
    BeforeValidator(lambda value: {"name": value} if isinstance(value, str) else value),
]
