"""Where things are in a run directory."""

from dataclasses import dataclass
from pathlib import Path

from storage.files import json_files
from storage.locations import local_folder


@dataclass(frozen=True)
class ModelLayout:
    """Paths of a trained network."""

    root: Path

    @property
    def architecture(self) -> Path:
        """All that is needed to rebuild the network, beside its weights."""
        return self.root / "architecture.json"

    @property
    def weights(self) -> Path:
        """Its weights."""
        return self.root / "weights.safetensors"

    @property
    def training(self) -> Path:
        """Records of its training."""
        return self.root / "training.json"


@dataclass(frozen=True)
class RunLayout:
    """Paths of one run.

    ```
    config.yaml      the config as resolved          dataset.zarr/  the synthetic images
    synthesis/       what the generator learned
    manifests/       one per finished piece of work  search/        found architecture, records
    checkpoints/     of work in progress             model/         architecture and weights
    results.json     the figures                     report.html    the page to read
    figures/         each as PNG, SVG and CSV
    cache/           Prefect's persisted results     dfnas.log      the log
    baselines/       networks that were not searched for
    finetuned/       the student after it has seen real images
    export/          the student for other programs
    ```

    Of a run in an object store, `cache/` and `dfnas.log` are on each machine, in `local`.
    """

    root: Path

    @property
    def config(self) -> Path:
        """The config as resolved."""
        return self.root / "config.yaml"

    @property
    def dataset(self) -> Path:
        """The Zarr group of synthetic images."""
        return self.root / "dataset.zarr"

    @property
    def learned(self) -> Path:
        """What the synthesis engine learned before the shards; only of engines that do."""
        return self.root / "synthesis" / "learned.safetensors"

    @property
    def search(self) -> Path:
        """Records of the search: what it found and how."""
        return self.root / "search" / "outcome.json"

    @property
    def latency_table(self) -> Path:
        """A copy of the latencies that the search counts with; only of runs that have them."""
        return self.root / "search" / "latency-table.json"

    @property
    def architecture(self) -> Path:
        """All that is needed to rebuild the student, beside its weights."""
        return self.model.architecture

    @property
    def weights(self) -> Path:
        """The student's weights."""
        return self.model.weights

    @property
    def training(self) -> Path:
        """Records of the retraining."""
        return self.model.training

    @property
    def model(self) -> ModelLayout:
        """The student."""
        return ModelLayout(self.root / "model")

    @property
    def finetuned(self) -> ModelLayout:
        """The student after it has seen real images."""
        return ModelLayout(self.root / "finetuned")

    def baseline(self, kind: str) -> ModelLayout:
        """A network that was not searched for."""
        return ModelLayout(self.root / "baselines" / kind)

    @property
    def evaluation(self) -> Path:
        """The final figures before they are put together."""
        return self.root / "evaluation.json"

    @property
    def latency(self) -> Path:
        """What a forward pass took on this machine."""
        return self.root / "latency.json"

    @property
    def results(self) -> Path:
        """The figures, with stable keys."""
        return self.root / "results.json"

    @property
    def report(self) -> Path:
        """The page to read."""
        return self.root / "report.html"

    @property
    def exports(self) -> Path:
        """Model files that the user asked for, and their cards; no piece of work counts on them."""
        return self.root / "export"

    @property
    def figures(self) -> Path:
        """The page's figures as PNG and SVG, and their numbers as CSV."""
        return self.root / "figures"

    @property
    def cache(self) -> Path:
        """Prefect's persisted task results: small manifests."""
        return self.local / "cache"

    @property
    def log(self) -> Path:
        """The log of every run in this directory."""
        return self.local / "dfnas.log"

    @property
    def local(self) -> Path:
        """What concerns this machine alone: the run directory itself, or if that is a URL, a folder here."""
        return local_folder(self.root)

    @property
    def provenance(self) -> Path:
        """What the run is made of: digest of the config, teacher, seed, versions."""
        return self.root / "manifest.json"

    def records(self, piece: str) -> Path:
        """Records of a piece of work, for the report."""
        return self.root / "records" / f"{piece}.json"

    def manifest(self, piece: str) -> Path:
        """The manifest of a finished piece of work, such as "synthesis-round-001-shard-00002" or "search"."""
        return self.root / "manifests" / f"{piece}.json"

    def manifests(self) -> list[Path]:
        """Those of all finished pieces, in the order of their names."""
        return json_files(self.root / "manifests")

    def checkpoint(self, piece: str) -> Path:
        """The state of a piece of work in progress."""
        return self.root / "checkpoints" / f"{piece}.pt"
