"""What synthetic images teach: accuracy on real images of a fresh student, at equal size or equal time of synthesis.

    python -m benchmarks.synthesis_quality --weights resnet20.safetensors --images cifar10_jpeg.tar.gz --json out.json
    python -m benchmarks.synthesis_quality ... --rows ours generator --minutes 10

Every data set holds the same number of images (--count), or takes the same wall time of synthesis (--minutes; noise and
real images take none, and have --count). A fresh ResNet-20 learns from the teacher on it for the same number of steps,
to the nearest whole epoch, and is then judged on real test images. Sets of the same size are augmented alike: images as
large as the teacher's input are first extended by reflection, so that they have windows, too, and images that are seen
fifty times or more are mixed. Real images enter that last figure, and the row "real" (an upper bound), which is there
for comparison only. Rows that the JSON file already has are not computed again, so an interrupted benchmark continues.
"""

import argparse
import json
import shlex
import sys
import time
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch
import yaml
from PIL import Image
from torch import Tensor

from benchmarks.common import CLASSES, Canvases, add_device, hardware, load_teacher, read_images
from benchmarks.image_sets import SHARD, bar, kept_set, settings, with_windows
from nas_core.checkpoint import Checkpoint
from nas_core.device import resolve_device
from nas_core.evaluation.accuracy import top1
from nas_core.evaluation.dataset_quality import dataset_quality
from nas_core.seeding import generator
from nas_core.settings.synthesis import GeneratorSpec
from nas_core.teachers import Teacher
from nas_core.teachers.networks import resnet20
from nas_core.training.batches import SyntheticBatches
from nas_core.training.retraining import augmentation, retrain
from nas_core.training.styles import RetrainConfig
from storage.dataset import SyntheticStore
from storage.files import digest_of_file, digest_of_json, write_json
from storage.layout import RunLayout

STUDENT_BATCH = 128
LONGEST_EPOCH = 120  # steps
SEEN_OFTEN = 50  # passes from which on images are mixed (docs/retraining.md)
JUDGED = 2048  # images that the data-free measures look at
# Options that decide what the images of a row are, and how they are judged.
SYNTHESISED = ("count", "minutes", "generator_steps", "iterations", "compile")
JUDGED_BY = ("test_images", "retrain", "steps")
# What --retrain may change: the student, its batches and how long it learns are the benchmark's.
CHANGEABLE = (
    "learning_rate", "final_learning_rate", "weight_decay", "gradient_clip", "precision", "temperature",
    "average_decay", "color_jitter", "crop_scale", "cutout", "mixup",
)  # fmt: skip
# Columns of the table that need no real image: name of the measure, factor, format.
MEASURES = {
    "agreement %": ("teacher_top1", 100, ".1f"),
    "rarest class %": ("rarest_class", 100, ".0f"),
    "entropy": ("entropy", 1, ".2f"),
    "diversity": ("within_class_distance", 1, ".3f"),
    "alike %": ("near_duplicates", 100, ".1f"),
    "BN distance": ("batch_norm_distance", 1, ".3f"),
}
ROWS = {
    "noise": "Gaussian noise in normalised space",
    "textbook": "pixel inversion of one-hot targets, canvas as large as the input",
    "regional": "and regional update: windows of a canvas of 36 x 36",
    "recursive": "and recursive labels, as in the paper: half of the images in each of two rounds, temperature 1",
    "ours": "our default labels: temperature 4, mean over 8 windows",
    "generator": "the generator engine with its defaults",
    "refined": "and twenty steps of the pixel engine from its canvases",
    "run": "the images of a dfnas run (--run)",
    "real": "real training images: upper bound",
}


def main() -> None:
    """Compute the missing rows and print the table."""
    arguments = parse_arguments()
    teacher = load_teacher(arguments.weights).to(resolve_device(arguments.device))
    test = read_images(arguments.images, "test", arguments.test_images)
    done: list[dict[str, Any]] = json.loads(arguments.json.read_text())["rows"] if arguments.json.exists() else []
    if any("made_by" not in row for row in done):
        sys.exit(f"{arguments.json} holds rows of an earlier version of this benchmark; give another --json")
    for seed in arguments.seeds:
        for name in arguments.rows:
            wanted = identity(name, seed, teacher, arguments)
            if any({field: row[field] for field in wanted} == wanted for row in done):
                continue
            row = measure(name, seed, teacher, test, arguments)
            print(json.dumps(row), flush=True)
            done.append(row | {"environment": environment(teacher.device)})
            write_json(arguments.json, {"rows": done})
    print(table(done))


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, required=True, help="safetensors of a CIFAR ResNet-20")
    parser.add_argument("--images", type=Path, required=True, help="tar with {train,test}/<class>/<n>.jpg")
    parser.add_argument("--json", type=Path, required=True, help="where rows are kept; continued if it exists")
    made = [name for name in ROWS if name != "run"]
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), default=made)
    parser.add_argument("--run", type=Path, help="directory of a dfnas run, for the row of that name")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--count", type=int, default=1024, help="images per data set, a multiple of 256")
    parser.add_argument("--minutes", type=float, help="wall time of synthesis per data set, instead of --count")
    parser.add_argument(
        "--generator-steps", type=int, default=GeneratorSpec().steps, help="steps by which the generator learns"
    )
    parser.add_argument("--keep", type=Path, help="folder for the data sets, which then are not made again")
    parser.add_argument("--grids", type=Path, help="folder for a picture of each data set")
    parser.add_argument("--iterations", type=int, default=400, help="optimisation steps per round")
    parser.add_argument("--steps", type=int, default=1200, help="distillation steps of 128 images")
    parser.add_argument(
        "--retrain",
        nargs="+",
        default="",
        metavar="FIELD=VALUE",
        help="settings of the config's section retrain that the distillation has instead of the benchmark's",
    )
    add_device(parser)
    parser.add_argument("--compile", action="store_true", help="synthesise by compiled code")
    parser.add_argument("--test-images", type=int, default=10_000, help="real images that judge the student")
    arguments = parser.parse_args()
    for change in arguments.retrain:
        field, sign, _ = change.partition("=")
        if field not in CHANGEABLE or not sign:
            parser.error(f"--retrain {change}: give FIELD=VALUE with one of the fields {', '.join(CHANGEABLE)}")
    arguments.retrain = " ".join(sorted(arguments.retrain))
    if arguments.count % (2 * SHARD["pixels"]):
        parser.error(f"--count is {arguments.count}; give a multiple of {2 * SHARD['pixels']}, so that sets are equal")
    return arguments


def identity(name: str, seed: int, teacher: Teacher, arguments: argparse.Namespace) -> dict[str, Any]:
    """What tells a row from others: a digest of all that its images depend on but the code, and how it is judged."""
    made_by: dict[str, Any] = {field: getattr(arguments, field) for field in SYNTHESISED}
    made_by |= {"set": name, "seed": seed, "teacher": teacher.fingerprint(), "device": teacher.device.type}
    if name == "run":
        made_by["run"] = SyntheticStore.open(RunLayout(arguments.run).dataset).provenance
    elif name == "real":
        made_by["images"] = digest_of_file(arguments.images)
    elif name != "noise":
        made_by["settings"] = settings(name, arguments, teacher).model_dump(mode="json")
    judged_by = {field: getattr(arguments, field) for field in JUDGED_BY}
    return {"made_by": digest_of_json(made_by)[:12], **judged_by}


def measure(
    name: str, seed: int, teacher: Teacher, test: tuple[Canvases, Tensor], arguments: argparse.Namespace
) -> dict[str, Any]:
    """Make one data set, judge it without data, train a student on it, judge that on real images."""
    told_by = identity(name, seed, teacher, arguments)
    made = kept_set(name, seed, told_by["made_by"], teacher, arguments)
    canvases, targets = made.canvases, made.targets
    sample = torch.randperm(len(canvases), generator=generator(seed, "benchmark.sample"))[:JUDGED]
    quality = dataset_quality(canvases[sample], targets[sample], teacher, generator(seed, "quality"))
    if arguments.grids:
        save_grid(canvases[sample], targets[sample], arguments.grids / f"{name}-{len(canvases)}-seed{seed}.png")
    started = time.monotonic()
    recipe = distillation(len(canvases), arguments)
    student = distil(canvases, teacher, seed, recipe)
    distillation_seconds = time.monotonic() - started
    return {
        "set": name,
        "seed": seed,
        "images": len(canvases),
        "student_top1": top1(student, batches(test, teacher)),
        "synthesis_seconds": round(made.seconds, 1),
        "learning_steps": made.learning_steps,
        "distillation_seconds": round(distillation_seconds, 1),
        "epochs": recipe.epochs,
        "mixup": recipe.mixup,
        "quality": quality.figures(),
        **{field: getattr(arguments, field) for field in SYNTHESISED},
        **told_by,
    }


def save_grid(canvases: Canvases, targets: Tensor, path: Path) -> None:
    """Ten images of each class, a column per class."""
    columns = [canvases[targets.argmax(dim=1) == label][:10] for label in range(len(CLASSES))]
    rows = torch.stack([torch.cat([column[i % len(column)] for column in columns], dim=2) for i in range(10)])
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(torch.cat(list(rows), dim=1).permute(1, 2, 0).numpy()).save(path)


def distillation(images: int, arguments: argparse.Namespace) -> RetrainConfig:
    """How a student learns from so many images: for the epochs that are nearest to the steps asked for."""
    whole_pass = images // STUDENT_BATCH
    recipe = {
        "epochs": max(2, round(arguments.steps / min(whole_pass, LONGEST_EPOCH))),
        "learning_rate": 0.3,
        "warmup_epochs": 1,
        "weight_decay": 5e-4,
        "temperature": 20.0,
        "mixup": float(arguments.steps / whole_pass >= SEEN_OFTEN),
    }
    changes = (change.partition("=") for change in arguments.retrain.split())
    return RetrainConfig.model_validate(recipe | {field: yaml.safe_load(value) for field, _, value in changes})


class ShortEpochs(SyntheticBatches):
    """Batches of which an epoch is no whole pass where that is long, but a random part of one.

    The warm-up takes an epoch, which for forty thousand images would be a third of a short training.
    """

    def __len__(self) -> int:
        """Batches in one epoch."""
        return min(super().__len__(), LONGEST_EPOCH)


def distil(canvases: Canvases, teacher: Teacher, seed: int, recipe: RetrainConfig) -> torch.nn.Module:
    """A fresh ResNet-20, taught by the teacher on random windows of the images."""
    student = resnet20().to(teacher.device)
    data = ShortEpochs(with_windows(canvases), teacher, STUDENT_BATCH)
    data.augmentation = augmentation(recipe)
    retrain(student, data, recipe, seed, Checkpoint(), bar("student"))
    return student


def batches(images: tuple[Canvases, Tensor], teacher: Teacher) -> Any:
    """Normalised images with labels."""
    for pixels, labels in zip(images[0].split(500), images[1].split(500), strict=True):
        yield teacher.normalise(pixels.to(teacher.device)), labels.to(teacher.device)


def environment(device: torch.device) -> dict[str, Any]:
    """What the numbers depend on."""
    return {"command": shlex.join(["python", "-m", "benchmarks.synthesis_quality", *sys.argv[1:]])} | hardware(device)


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as a Markdown table: mean over seeds, with the standard deviation where there are several."""
    columns = ("data", "images", "synthesis s", "learning steps", "steps", "epochs", "student top-1 %", *MEASURES)
    lines = [f"| {' | '.join((*columns, 'seeds'))} |", "|---" * (len(columns) + 1) + "|"]
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["set"], *(row[field] for field in (*SYNTHESISED, *JUDGED_BY))), []).append(row)
    for found in groups.values():
        name, retraining, steps = (found[0][field] for field in ("set", "retrain", "steps"))
        qualities = [row["quality"] for row in found]
        cells = [
            f"{name}: {ROWS[name]}" + f" (retrain: {retraining})" * bool(retraining),
            f"{mean(row['images'] for row in found):.0f}",
            f"{mean(row['synthesis_seconds'] for row in found):.0f}",
            each(["?" if row["learning_steps"] is None else row["learning_steps"] or "-" for row in found]),
            str(steps),
            each([f"{row['epochs']}{' mixed' * bool(row['mixup'])}" for row in found]),
            spread([100 * row["student_top1"] for row in found]),
            *(f"{mean(q[field] for q in qualities) * scale:{form}}" for field, scale, form in MEASURES.values()),
            str(len(found)),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def each(values: list[Any]) -> str:
    """The different ones among the values of several seeds."""
    return "/".join(dict.fromkeys(map(str, values)))


def spread(values: list[float]) -> str:
    """Mean, and standard deviation of several."""
    return f"{mean(values):.1f} ± {stdev(values):.1f}" if len(values) > 1 else f"{values[0]:.1f}"


if __name__ == "__main__":
    main()
