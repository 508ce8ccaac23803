"""Does a search without data find what a search with data finds? Judged by the true accuracies of NAS-Bench-201.

    python -m benchmarks.nasbench201 --weights resnet20.safetensors --images cifar10_jpeg.tar.gz \
        --table nasbench201_cifar10.csv --synthetic runs/cifar --out results/nasbench201

Rows are kinds of data x methods x seeds. Every row is a task of a Prefect flow and a JSON file of its own in --out, and
a search in progress a checkpoint beside it: run again to go on. Methods that train a supernet alike share it
(supernet-*.ckpt); the time of each has the training in it. A method is a file of settings in
benchmarks/nasbench201_rows. True accuracies judge a finished search and its ranking; nothing else reads them. Rankings
are judged on 300 architectures of which none was among the 300 that settings were chosen by. Real images are in the
rows "real" and "real-labels" only, which are there for comparison.

    synthetic    the images of a dfnas run (--synthetic, its directory), labelled by the teacher
    one-hot      those of another run (--one-hot), made by the pixel engine and its losses for one-hot targets, without
                 regional update; the search has the teacher's soft labels of them, as of all but the last kind
    noise        Gaussian noise, labelled by the teacher
    real         real training images, labelled by the teacher
    real-labels  the same, with their true labels

Images no larger than the teacher's input are extended by reflection to the size of the synthetic canvases, so that all
have random windows.
"""

import argparse
import dataclasses
import json
import os
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

# A busy machine takes its time to start the server that a flow without one brings along.
os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "180")

from prefect import flow, task
from prefect.task_runners import ThreadPoolTaskRunner

from benchmarks.common import CLASSES, add_device, hardware
from benchmarks.nasbench201_data import KINDS, Data, Watched, digest_of_content, make_task
from benchmarks.nasbench201_figures import alpha_scores, plot_courses, plot_rankings, rank_figures, table, together
from nas_core.checkpoint import Checkpoint
from nas_core.registry import Spec
from nas_core.search_spaces import spaces
from nas_core.search_spaces.base import Choices, Supernet
from nas_core.search_spaces.lookup import AccuracyTable
from nas_core.seeding import generator
from nas_core.settings.spaces import NasBench201Spec
from nas_core.settings.strategies import SposSpec
from nas_core.strategies import Strategy, strategies
from nas_core.strategies.rating import Rating
from nas_core.strategies.spos import Spos
from nas_core.strategies.successive_halving import SuccessiveHalving
from nas_core.strategies.training_free import SCORES, TrainingFree, TrainingFreeRating, images_of, log_rank_sums
from nas_core.training.augmentation import Augmentation
from nas_core.training.recipe import Recipe
from storage.checkpoints import load_checkpoint, save_checkpoint
from storage.files import digest_of, read_json, write_json

ROWS = Path(__file__).with_name("nasbench201_rows")
# Cheap ones first, then those whose rows matter most.
FIRST = ("training-free", "naswot", "macs", "parameters", "spos", "darts", "sdarts-rs")
METHODS = (*FIRST, *sorted(path.stem for path in ROWS.glob("*.yaml") if path.stem not in FIRST))
# Raised when the code changes what a row finds or what a kept supernet learned. 2: connected architectures only.
VERSION = 2
RANKED = 300  # architectures of the ranking, drawn once; as many others are those that settings were chosen by
RECALIBRATION = 4  # batches that give a supernet's path its BatchNorm statistics


@dataclass(frozen=True)
class Settings(Data):
    """What all rows share; see the command line."""

    table: Path
    column: str
    out: Path

    def row(self, kind: str, method: str, seed: int) -> Path:
        """Where a row is kept."""
        return self.out / f"{kind}-{method}-seed{seed}.json"

    def key(self, kind: str, method: str, seed: int) -> str:
        """What a row depends on; of the code, its version."""
        # With all defaults written out: a row is stale if one of them has changed.
        config = [spec.model_dump(mode="json") for spec in specs(method)]
        config += [dataclasses.asdict(shift)] if (shift := validation_shift(method)) != Augmentation() else []
        judged_by = [digest_of_content(self.table), self.column, RANKED, RECALIBRATION]
        return json.dumps([VERSION, config, self.digests(kind, seed), judged_by])

    def supernet(self, kind: str, method: str, seed: int) -> tuple[Path, str] | None:
        """Where the trained supernet of one-shot methods is kept, and what it depends on; None for the others.

        Methods that train it alike share it: SPOS, SPOS with a prior, random search with weight sharing.
        """
        space, strategy = specs(method)
        if not isinstance(strategy, SposSpec):
            return None
        training = strategy.model_dump(mode="json", include={*Recipe.model_fields, "sampling", "mac_bins"})
        key = json.dumps([VERSION, space.model_dump(mode="json"), training, self.digests(kind, seed)])
        return self.out / f"supernet-{digest_of(key.encode())[:12]}.ckpt", key


def specs(method: str) -> tuple[NasBench201Spec, Spec]:
    """The space and the strategy of a row's file."""
    config = yaml.safe_load((ROWS / f"{method}.yaml").read_text())
    strategy = strategies.spec(config["strategy"]["name"]).model_validate(config["strategy"])
    return NasBench201Spec.model_validate(config["space"]), strategy


def validation_shift(method: str) -> Augmentation:
    """How a row's validation images vary: those by which architectures are rated or architecture weights learn."""
    return Augmentation(**yaml.safe_load((ROWS / f"{method}.yaml").read_text()).get("validation", {}))


def main() -> None:
    """Compute the missing rows, then write the table, the plots and all rows in one file."""
    arguments = parse_arguments()
    shared = {name: getattr(arguments, name) for name in Settings.__dataclass_fields__}
    settings = Settings(**shared)
    wanted = [
        (kind, method, seed) for seed in arguments.seeds for method in arguments.methods for kind in arguments.kinds
    ]
    for kind, needed in (("synthetic", settings.synthetic), ("one-hot", settings.one_hot)):
        if kind in arguments.kinds and not needed:
            sys.exit(f"rows of kind {kind} need --{kind}: the directory of a dfnas run")
    settings.out.mkdir(parents=True, exist_ok=True)
    missing = [row for row in wanted if not is_done(settings, *row)]
    failed = nasbench201(settings, missing)
    kept = [read_json(path) for path in sorted(settings.out.glob("*-seed*.json"))]
    # Those of other settings, or of kinds of data that the command line does not name, are left out.
    known = [row for row in kept if row["method"] in METHODS]
    done = [row for row in known if row.get("key") == settings.key(row["kind"], row["method"], row["seed"])]
    text = table(done)
    (settings.out / "table.md").write_text(text + "\n")
    (settings.out / "rows.json").write_text(together(done))
    plot_rankings(done, settings.out / "ranking.png")
    plot_courses(done, settings.out / "anytime.png")
    print(text)
    if failed:
        sys.exit(f"{len(failed)} rows failed ({', '.join(failed)}); run again to try them once more")


def is_done(settings: Settings, kind: str, method: str, seed: int) -> bool:
    """Whether a row is there; ends the program if it was made with other settings or images."""
    file = settings.row(kind, method, seed)
    if not file.exists():
        return False
    if read_json(file).get("key") != settings.key(kind, method, seed):
        sys.exit(f"{file} was made with other settings or images; move it away, or give another --out")
    return True


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, required=True, help="safetensors of a CIFAR ResNet-20")
    parser.add_argument("--images", type=Path, required=True, help="tar with {train,test}/<class>/<n>.jpg")
    parser.add_argument("--table", type=Path, required=True, help="CSV of NAS-Bench-201: arch and true accuracies")
    parser.add_argument("--column", default="cifar10_test_acc_200ep", help="the accuracies' column")
    parser.add_argument("--out", type=Path, required=True, help="folder of the rows; continued if it exists")
    for kind, images in (("synthetic", "the synthetic images"), ("one-hot", "one-hot images of the pixel engine")):
        parser.add_argument(
            f"--{kind}",
            type=Path,
            nargs="+",
            default=(),
            help=f"directory of a dfnas run with {images}; several: of seed 0, 1, ...",
        )
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=["synthetic", "noise", "real"])
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--count", type=int, default=4096, help="images of every kind that a search learns from")
    parser.add_argument("--validation", type=int, default=512, help="images of every kind that it rates on")
    add_device(parser)
    return parser.parse_args()


@flow(name="nasbench201", task_runner=ThreadPoolTaskRunner(max_workers=1))  # type: ignore[arg-type]
def nasbench201(settings: Settings, wanted: Sequence[tuple[str, str, int]]) -> list[str]:
    """The rows, one after the other; the names of those that failed, which do not stop the others."""
    futures = {settings.row(*names).stem: row.submit(settings, *names) for names in wanted}
    for future in futures.values():
        future.wait()
    return [name for name, future in futures.items() if not future.state.is_completed()]


@task(task_run_name="{method} on {kind}, seed {seed}")
def row(settings: Settings, kind: str, method: str, seed: int) -> None:
    """Search with one method on one kind of data, and judge what was found and how it ranks."""
    space_spec, strategy_spec = specs(method)
    truth = AccuracyTable.read(settings.table, settings.column)
    space = spaces.build(space_spec, input_shape=(3, 32, 32), num_classes=len(CLASSES))
    strategy = strategies.build(strategy_spec)
    work = make_task(settings, kind, seed, space)
    work.validation.augmentation = validation_shift(method)
    file, key = settings.row(kind, method, seed), settings.key(kind, method, seed)
    course = Course(file.with_suffix(".ckpt"), key, settings.supernet(kind, method, seed))
    outcome = strategy.search(work, course.checkpoint(), lambda *_: None)
    seconds = course.seconds()
    judged = [space.parse(text) for text in ranked_architectures(truth)]
    paths = [space.choices(architecture) for architecture in judged]
    scores = ranking(strategy, work, paths)
    accuracies = [truth.of(architecture) for architecture in judged]
    figures = {
        "kind": kind,
        "method": method,
        "seed": seed,
        "key": key,
        "images": images_used(strategy, settings),
        "architecture": str(outcome.architecture),
        "accuracy": truth.of(outcome.architecture),
        "seconds": round(seconds, 1),
        "ranking_seconds": round(course.seconds() - seconds, 1),
        "curve": [truth.of(space.parse(record["architecture"])) for record in outcome.search],
        "curve_seconds": course.ends(len(outcome.search)) if not isinstance(strategy, SuccessiveHalving) else [],
        "macs_tau": rank_figures([space.macs(path) for path in paths], accuracies)["tau"],
        "environment": environment(work.device),
        "settings": {
            "space": space_spec.model_dump(mode="json"),
            "strategy": strategy_spec.model_dump(mode="json"),
            "validation": dataclasses.asdict(work.validation.augmentation),
        },
    }
    if scores is not None:
        figures |= rank_figures(scores, accuracies) | {"scores": scores, "accuracies": accuracies}
    if (gates := outcome.search[-1].get("gates")) is not None:
        figures |= {"gates": gates, "tau_of_alpha": rank_figures(alpha_scores(gates, paths), accuracies)["tau"]}
    write_json(file, figures)
    course.file.unlink(missing_ok=True)
    print(json.dumps({name: figures.get(name) for name in SHOWN}), flush=True)


def images_used(strategy: Strategy, settings: Settings) -> int:
    """Images of its kind that a search learns from, rates on or scores with."""
    if not isinstance(strategy, TrainingFree):
        return settings.count + settings.validation
    looked = any(score in SCORES and images_of(score, strategy.inputs) == "synthetic" for score in strategy.scores)
    return min(strategy.images, settings.count) if looked else 0


class Course:
    """A search's checkpoints with the time that it has taken, interruptions left out.

    Args:
        file: Where they are kept.
        key: What the search depends on.
        supernet: File and key of a trained supernet that the search may start from, with the time that it took, and
            leaves behind for others; None: it has none that others train alike.
    """

    def __init__(self, file: Path, key: str, supernet: tuple[Path, str] | None = None) -> None:
        self.file, self._key, self._supernet = file, key, supernet
        trained = load_checkpoint(*supernet) if supernet else None
        self._kept = load_checkpoint(file, key) or trained or {"search": None, "saved": []}
        before = self._kept["saved"][-1] if self._kept["saved"] else 0.0
        self._started = time.monotonic() - before

    def seconds(self) -> float:
        """Since the search began."""
        return time.monotonic() - self._started

    def checkpoint(self) -> Checkpoint:
        """Where the search left off, and where it saves; strategies do so after every epoch or generation."""
        return Checkpoint(self._kept["search"], self._save)

    def ends(self, records: int) -> list[float]:
        """When each of the last epochs or generations ended, in seconds, as many as there are records of them.

        Successive halving saves more often than it has records: it has no such course.
        """
        return [round(seconds, 1) for seconds in self._kept["saved"][-records:]]

    def _save(self, state: dict[str, Any]) -> None:
        if self._supernet and "evolution" in state and "evolution" not in (self._kept["search"] or {}):
            trained = {"search": {"supernet": state["supernet"]}, "saved": self._kept["saved"]}
            save_checkpoint(*self._supernet, trained)
        self._kept = {"search": state, "saved": [*self._kept["saved"], self.seconds()]}
        save_checkpoint(self.file, self._key, self._kept)


SHOWN = ("kind", "method", "seed", "accuracy", "tau", "rho", "tau_best_tenth", "best_of_top_10", "seconds")


def ranked_architectures(truth: AccuracyTable) -> list[str]:
    """The architectures of the ranking: the same for every row, none of those that settings were chosen by."""
    names = sorted(truth.accuracies)
    order = torch.randperm(len(names), generator=generator(0, "benchmark.ranked"))
    return [names[index] for index in order[RANKED : 2 * RANKED].tolist()]


def ranking(strategy: Strategy, work: Watched, paths: Sequence[Choices]) -> list[float] | None:
    """Scores of architectures as a finished search would give them, by its supernet if it has one.

    None for methods that train each architecture alone, or a supernet of partial channels.
    """
    if isinstance(strategy, TrainingFree):
        rating = TrainingFreeRating(work, strategy.scores, strategy.images, strategy.inputs)
        return log_rank_sums([rating(path)["scores"] for path in paths])
    supernet: Supernet | None = getattr(work, "made", None)
    if supernet is None:
        return None
    if isinstance(strategy, Spos) and strategy.training_free:
        rating = strategy.rating(supernet, work, RECALIBRATION)
        return log_rank_sums([rating(path)["scores"] for path in paths])
    rating = Rating(work, RECALIBRATION)
    return [rating(supernet, path) for path in paths]


def environment(device: torch.device) -> dict[str, Any]:
    """What the numbers depend on."""
    return {"command": shlex.join(["python", "-m", "benchmarks.nasbench201", *sys.argv[1:]])} | hardware(device)


if __name__ == "__main__":
    main()
