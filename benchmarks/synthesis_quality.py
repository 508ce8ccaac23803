"""What synthetic images teach: accuracy on real images of a fresh student, per data set of equal size.

    python -m benchmarks.synthesis_quality --weights resnet20.safetensors --images cifar10_jpeg.tar.gz --json out.json

Every data set holds the same number of images; a fresh ResNet-20 learns from the teacher on it for the same number of
steps, and is then judged on real test images. Real images enter that last figure, and the row "real" (an upper
bound), which is there for comparison only. Rows that the JSON file already has are not computed again, so an
interrupted benchmark continues.
"""

import argparse
import importlib.metadata
import io
import json
import os
import sys
import tarfile
import time
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from nas_core.checkpoint import Checkpoint
from nas_core.evaluation.accuracy import top1
from nas_core.evaluation.dataset_quality import dataset_quality
from nas_core.seeding import generator
from nas_core.synthesis.config import LabelCalibration, LossWeights, PixelStage
from nas_core.synthesis.labels import one_hot, shard_classes
from nas_core.synthesis.pixels import PixelSynthesis
from nas_core.teachers import Teacher, teachers
from nas_core.teachers.networks import resnet20
from nas_core.teachers.reference import ReferenceSpec
from nas_core.training.batches import SyntheticBatches
from nas_core.training.recipe import Recipe
from nas_core.training.retraining import retrain

Canvases = UInt8[Tensor, "images channels height width"]

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
SHARD = 128
STUDENT_BATCH = 128
PAPER_LABELS = LabelCalibration(temperature=1.0, windows=1, start="noise")
# Of the prototype that the project started from; the same for all rows, so that rows differ in one thing each.
LOSSES = LossWeights(batch_norm=1.0, total_variation=1e-3)
ROWS = {
    "noise": "Gaussian noise in normalised space",
    "textbook": "pixel inversion of one-hot targets, canvas as large as the input",
    "regional": "and regional update: windows of a canvas of 36 x 36",
    "recursive": "and recursive labels, as in the paper: half of the images in each of two rounds, temperature 1",
    "ours": "our default labels: temperature 4, mean over 8 windows",
    "real": "real training images: upper bound",
}


def main() -> None:
    """Compute the missing rows and print the table."""
    arguments = parse_arguments()
    teacher = load_teacher(arguments.weights)
    test = read_images(arguments.images, "test", arguments.test_images)
    done: list[dict[str, Any]] = json.loads(arguments.json.read_text())["rows"] if arguments.json.exists() else []
    for seed in arguments.seeds:
        for name in arguments.rows:
            if any((row["set"], row["seed"]) == (name, seed) for row in done):
                continue
            row = measure(name, seed, teacher, test, arguments)
            print(json.dumps(row), flush=True)
            done.append(row)
            arguments.json.write_text(json.dumps({"environment": environment(), "rows": done}, indent=1))
    print(table(done))


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, required=True, help="safetensors of a CIFAR ResNet-20")
    parser.add_argument("--images", type=Path, required=True, help="tar with {train,test}/<class>/<n>.jpg")
    parser.add_argument("--json", type=Path, required=True, help="where rows are kept; continued if it exists")
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), default=list(ROWS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--count", type=int, default=1024, help="images per data set, a multiple of 256")
    parser.add_argument("--iterations", type=int, default=400, help="optimisation steps per round")
    parser.add_argument("--steps", type=int, default=1200, help="distillation steps of 128 images")
    parser.add_argument("--test-images", type=int, default=10_000, help="real images that judge the student")
    return parser.parse_args()


def measure(
    name: str, seed: int, teacher: Teacher, test: tuple[Canvases, Tensor], arguments: argparse.Namespace
) -> dict[str, Any]:
    """Make one data set, judge it without data, train a student on it, judge that on real images."""
    started = time.monotonic()
    canvases, targets = make_set(name, seed, teacher, arguments)
    synthesis_seconds = time.monotonic() - started
    quality = dataset_quality(canvases, targets, teacher, generator(seed, "quality"))
    started = time.monotonic()
    student = distil(canvases, teacher, seed, arguments.steps)
    distillation_seconds = time.monotonic() - started
    return {
        "set": name,
        "seed": seed,
        "images": len(canvases),
        "student_top1": top1(student, batches(test, teacher)),
        "synthesis_seconds": round(synthesis_seconds, 1),
        "distillation_seconds": round(distillation_seconds, 1),
        "quality": quality.figures(),
        "iterations": arguments.iterations,
        "steps": arguments.steps,
    }


def make_set(name: str, seed: int, teacher: Teacher, arguments: argparse.Namespace) -> tuple[Canvases, Tensor]:
    """The images of a row, and the class probabilities that they were asked for."""
    count = arguments.count
    if name == "real":
        images, labels = read_images(arguments.images, "train", count, generator(seed, "benchmark.real"))
        return images, one_hot(labels, len(CLASSES))
    if name == "noise":
        noise = torch.randn(count, *teacher.input_shape, generator=generator(seed, "benchmark.noise"))
        classes = torch.arange(count) % len(CLASSES)
        return teacher.to_bytes(noise), one_hot(classes, len(CLASSES))
    size = (32, 32) if name == "textbook" else (36, 36)
    labels = LabelCalibration() if name == "ours" else PAPER_LABELS
    rounds = 2 if name in ("recursive", "ours") else 1
    engine = PixelSynthesis(
        teacher,
        canvas_size=size,
        labels=labels,
        stages=(PixelStage(iterations=arguments.iterations),),
        min_scale=1.0,
        learning_rate=0.1,
        warmup=arguments.iterations // 10,
        betas=(0.5, 0.9),
        losses=LOSSES,
    )
    return synthesise(engine, seed, rounds, count // rounds // SHARD)


def synthesise(engine: PixelSynthesis, seed: int, rounds: int, shards: int) -> tuple[Canvases, Tensor]:
    """All rounds of all shards."""
    canvases, targets = [], []
    for shard in tqdm(range(shards), desc="shards", disable=None):
        asked = one_hot(shard_classes(seed, shard, SHARD, len(CLASSES)), len(CLASSES))
        for round_ in range(rounds):
            temperature = 1.0 if round_ == 0 else engine.labels.temperature
            draws = generator(seed, "synthesis.noise", round_, shard)
            images = engine.make(asked, draws, target_temperature=temperature)
            canvases.append(images.canvases)
            targets.append(images.targets)
            asked = images.soft_labels
    return torch.cat(canvases), torch.cat(targets)


def distil(canvases: Canvases, teacher: Teacher, seed: int, steps: int) -> torch.nn.Module:
    """A fresh ResNet-20, taught by the teacher on random windows of the images."""
    student = resnet20()
    data = SyntheticBatches(canvases, teacher, STUDENT_BATCH)
    recipe = Recipe(epochs=steps // len(data), learning_rate=0.1, warmup_epochs=1, weight_decay=5e-4)
    bar = tqdm(total=steps, desc="student", disable=None)

    def progress(done: int, _: int, figures: dict[str, float]) -> None:
        bar.set_postfix(figures, refresh=False)
        bar.update(done - bar.n)

    retrain(student, data, recipe, 4.0, seed, Checkpoint(), progress)
    bar.close()
    return student


def load_teacher(weights: Path) -> Teacher:
    """The teacher."""
    spec = ReferenceSpec(
        network="resnet20",
        weights=weights,
        input_shape=(3, 32, 32),
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        class_names=CLASSES,
    )
    return teachers.build(spec)


def read_images(archive: Path, split: str, count: int, draws: torch.Generator | None = None) -> tuple[Canvases, Tensor]:
    """The first images of a split, or a random choice of them, with their class indices."""
    with tarfile.open(archive) as tar:
        members = [m for m in tar.getmembers() if m.name.removeprefix("./").startswith(f"{split}/") and m.isfile()]
        members.sort(key=lambda member: member.name)
        order = torch.randperm(len(members), generator=draws or generator(0, f"benchmark.{split}"))[:count]
        chosen = sorted((members[i] for i in order.tolist()), key=lambda member: member.offset)
        images = [decode(tar.extractfile(member)) for member in tqdm(chosen, desc=f"read {split}", disable=None)]
    labels = [CLASSES.index(member.name.split("/")[-2]) for member in chosen]
    return torch.stack(images), torch.tensor(labels)


def decode(file: Any) -> Tensor:
    """One image as bytes, [3, 32, 32]."""
    return torch.from_numpy(np.array(Image.open(io.BytesIO(file.read())).convert("RGB"))).permute(2, 0, 1)


def batches(images: tuple[Canvases, Tensor], teacher: Teacher) -> Any:
    """Normalised images with labels."""
    for pixels, labels in zip(images[0].split(500), images[1].split(500), strict=True):
        yield teacher.normalise(pixels), labels


def environment() -> dict[str, Any]:
    """What the numbers depend on."""
    return {
        "command": " ".join(["python -m benchmarks.synthesis_quality", *sys.argv[1:]]),
        "torch": importlib.metadata.version("torch"),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
    }


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as a Markdown table: mean over seeds, with the standard deviation where there are several."""
    lines = ["| data | student top-1 % | synthesis s | teacher top-1 on targets % | seeds |", "|---|---|---|---|---|"]
    for name, description in ROWS.items():
        found = [row for row in rows if row["set"] == name]
        if found:
            student = spread([100 * row["student_top1"] for row in found])
            seconds = mean(row["synthesis_seconds"] for row in found)
            seen = 100 * mean(row["quality"]["teacher_top1"] for row in found)
            lines.append(f"| {name}: {description} | {student} | {seconds:.0f} | {seen:.1f} | {len(found)} |")
    return "\n".join(lines)


def spread(values: list[float]) -> str:
    """Mean, and standard deviation of several."""
    return f"{mean(values):.1f} ± {stdev(values):.1f}" if len(values) > 1 else f"{values[0]:.1f}"


if __name__ == "__main__":
    main()
