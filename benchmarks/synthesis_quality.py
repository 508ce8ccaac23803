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
import dataclasses
import json
import shlex
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch
import yaml
from PIL import Image
from safetensors.torch import load_file, save
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm

from benchmarks.common import CLASSES, Canvases, add_device, hardware, read_images
from nas_core.checkpoint import Checkpoint, Progress
from nas_core.device import resolve_device
from nas_core.evaluation.accuracy import top1
from nas_core.evaluation.dataset_quality import dataset_quality
from nas_core.seeding import generator
from nas_core.settings.synthesis import GeneratorSpec, LabelCalibration, LossWeights, PixelSpec, PixelStage
from nas_core.settings.teachers import ReferenceSpec
from nas_core.synthesis.build import build_engine
from nas_core.synthesis.config import SynthesisConfig
from nas_core.synthesis.engine import SynthesisEngine
from nas_core.synthesis.labels import one_hot, shard_classes
from nas_core.synthesis.shard import ShardImages
from nas_core.teachers import Teacher, teachers
from nas_core.teachers.networks import resnet20
from nas_core.training.batches import SyntheticBatches
from nas_core.training.retraining import augmentation, retrain
from nas_core.training.styles import RetrainConfig
from storage.dataset import SyntheticImages, SyntheticStore
from storage.files import digest_of_file, digest_of_json, read_json, write_bytes, write_json
from storage.layout import RunLayout

SHARD = {"pixels": 128, "generator": 256}
STUDENT_BATCH = 128
SEEN_OFTEN = 50  # epochs from which on images are mixed (docs/retraining.md)
CANVAS = (36, 36)
MOST_IMAGES = 51_200  # of an engine that could draw for ever
JUDGED = 2048  # images that the data-free measures look at
PAPER_LABELS = LabelCalibration.model_validate("paper")
# Of the prototype that the project started from; the same for all rows, so that rows differ in one thing each.
LOSSES = LossWeights(batch_norm=1.0, total_variation=1e-3)
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
    made = kept_set(name, seed, teacher, arguments)
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
        **identity(name, seed, teacher, arguments),
    }


@dataclass(frozen=True)
class ImageSet:
    """The images of a row.

    Attributes:
        canvases: The images.
        targets: The class probabilities that they were asked for.
        learning_steps: Steps by which a generator learned; 0: there was none.
        seconds: What making them took.
    """

    canvases: Canvases
    targets: Tensor
    learning_steps: int = 0
    seconds: float = 0.0


def kept_set(name: str, seed: int, teacher: Teacher, arguments: argparse.Namespace) -> ImageSet:
    """A row's images: kept ones if the folder has them."""
    if name == "run":
        dataset = RunLayout(arguments.run).dataset
        images, engine = SyntheticImages(dataset), SyntheticStore.open(dataset).provenance["synthesis"]["engine"]
        learning = engine["steps"] if engine["name"] == "generator" else 0
        return ImageSet(images.canvases, images.targets, learning, seconds_of_run(arguments.run))
    made_by = identity(name, seed, teacher, arguments)["made_by"]
    file = arguments.keep and arguments.keep / f"{name}-seed{seed}-{made_by}.safetensors"
    if file and file.exists():
        found = load_file(file)
        return ImageSet(found["canvases"], found["targets"], int(found["learning_steps"]), float(found["seconds"]))
    started = time.monotonic()
    made = make_set(name, seed, teacher, arguments)
    made = dataclasses.replace(made, seconds=time.monotonic() - started)
    if file:
        parts = {field: torch.as_tensor(value).contiguous() for field, value in vars(made).items()}
        write_bytes(file, save(parts))
    return made


def make_set(name: str, seed: int, teacher: Teacher, arguments: argparse.Namespace) -> ImageSet:
    """The images of a row."""
    count = arguments.count
    if name == "real":
        images, labels = read_images(arguments.images, "train", count, generator(seed, "benchmark.real"))
        return ImageSet(images, one_hot(labels, len(CLASSES)))
    if name == "noise":
        noise = torch.randn(count, *teacher.input_shape, generator=generator(seed, "benchmark.noise"))
        classes = torch.arange(count) % len(CLASSES)
        return ImageSet(teacher.to_bytes(noise), one_hot(classes, len(CLASSES)))
    started = time.monotonic()
    config = settings(name, arguments, teacher)
    if isinstance(config.engine, GeneratorSpec) and arguments.minutes is not None:
        affordable = affordable_engine(config.engine, teacher, 60 * arguments.minutes)
        config = config.model_copy(update={"engine": affordable})
    engine = build_engine(teacher, config)
    learned, _ = engine.learn(torch.arange(len(CLASSES)), config.batch_size, seed, Checkpoint(), bar("learn"))
    engine.load(learned)
    if arguments.minutes is None:
        enough = count // config.rounds // config.batch_size
    else:
        enough = MOST_IMAGES // config.rounds // config.batch_size
    canvases, targets = [], []
    drawing = time.monotonic()
    for shard in range(enough):
        now = time.monotonic()
        # The shard that comes last may end as much after the budget as before it.
        half = (now - drawing) / shard / 2 if shard else 0.0
        if arguments.minutes is not None and shard and now - started + half > 60 * arguments.minutes:
            break
        for images in shard_rounds(engine, config, seed, shard):
            canvases.append(images.canvases)
            targets.append(images.targets)
    learning = config.engine.steps if isinstance(config.engine, GeneratorSpec) else 0
    return ImageSet(torch.cat(canvases), torch.cat(targets), learning)


def seconds_of_run(directory: Path) -> float:
    """What the synthesis of a run took, by its manifests."""
    manifests = [read_json(path) for path in RunLayout(directory).manifests()]
    return sum(m["seconds"] for m in manifests if m["piece"].startswith(("noise", "learn", "synthesis")))


def settings(name: str, arguments: argparse.Namespace, teacher: Teacher) -> SynthesisConfig:
    """The synthesis section of a row."""
    if name == "generator":
        engine: PixelSpec | GeneratorSpec = GeneratorSpec(steps=arguments.generator_steps, compile=arguments.compile)
    else:
        stage = PixelStage(iterations=arguments.iterations)
        warmup = arguments.iterations // 10
        engine = PixelSpec(stages=(stage,), warmup=warmup, losses=LOSSES, compile=arguments.compile)
    return SynthesisConfig(
        batch_size=SHARD[engine.name],
        rounds=2 if name in ("recursive", "ours") else 1,
        canvas=teacher.input_shape[1:] if name == "textbook" else CANVAS,
        # One round needs no labels for a next one, so it spends no time on them.
        labels=LabelCalibration() if name == "ours" else PAPER_LABELS,
        engine=engine,
    )


def affordable_engine(spec: GeneratorSpec, teacher: Teacher, seconds: float) -> GeneratorSpec:
    """The engine with as many steps of learning as leave half of the time for the shards, measured on this machine."""
    trial = spec.model_copy(update={"steps": 12, "snapshots": 1, "warmup": 0})
    times: list[float] = []
    config = SynthesisConfig(batch_size=SHARD[spec.name], canvas=CANVAS, engine=trial)
    build_engine(teacher, config).learn(
        torch.arange(teacher.num_classes),
        config.batch_size,
        0,
        Checkpoint(),
        lambda *_: times.append(time.monotonic()),
    )
    steps = max(1, int(0.5 * seconds / ((times[-1] - times[1]) / (len(times) - 2))))
    tqdm.write(f"generator: learns for {steps} steps, half of {seconds:g} seconds")
    fitting = {
        "steps": steps,
        "snapshots": min(spec.snapshots, max(1, steps // 2)),
        "warmup": min(spec.warmup, steps - 1),
    }
    return GeneratorSpec.model_validate(spec.model_dump() | fitting)


def shard_rounds(engine: SynthesisEngine, config: SynthesisConfig, seed: int, shard: int) -> Iterator[ShardImages]:
    """All rounds of one shard."""
    asked = one_hot(shard_classes(seed, shard, config.batch_size, len(CLASSES)), len(CLASSES))
    for round_ in range(config.rounds):
        temperature = 1.0 if round_ == 0 else config.labels.temperature
        draws = generator(seed, "synthesis.noise", round_, shard)
        images = engine.make(asked, draws, target_temperature=temperature, progress=bar(f"shard {shard}"))
        yield images
        asked = images.soft_labels


def save_grid(canvases: Canvases, targets: Tensor, path: Path) -> None:
    """Ten images of each class, a column per class."""
    columns = [canvases[targets.argmax(dim=1) == label][:10] for label in range(len(CLASSES))]
    rows = torch.stack([torch.cat([column[i % len(column)] for column in columns], dim=2) for i in range(10)])
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(torch.cat(list(rows), dim=1).permute(1, 2, 0).numpy()).save(path)


def bar(description: str) -> Progress:
    """A progress bar on a terminal."""
    shown = tqdm(desc=description, disable=None, leave=False)

    def progress(done: int, total: int, figures: dict[str, float]) -> None:
        shown.total = total
        shown.set_postfix(figures, refresh=False)
        shown.update(done - shown.n)

    return progress


def distillation(images: int, arguments: argparse.Namespace) -> RetrainConfig:
    """How a student learns from so many images: for the passes over them that are nearest to the steps asked for."""
    epochs = max(2, round(arguments.steps / (images // STUDENT_BATCH)))
    recipe = {
        "epochs": epochs,
        "learning_rate": 0.3,
        "warmup_epochs": 1,
        "weight_decay": 5e-4,
        "temperature": 20.0,
        "mixup": float(epochs >= SEEN_OFTEN),
    }
    changes = (change.partition("=") for change in arguments.retrain.split())
    return RetrainConfig.model_validate(recipe | {field: yaml.safe_load(value) for field, _, value in changes})


def distil(canvases: Canvases, teacher: Teacher, seed: int, recipe: RetrainConfig) -> torch.nn.Module:
    """A fresh ResNet-20, taught by the teacher on random windows of the images."""
    student = resnet20().to(teacher.device)
    data = SyntheticBatches(with_windows(canvases), teacher, STUDENT_BATCH)
    data.augmentation = augmentation(recipe)
    retrain(student, data, recipe, seed, Checkpoint(), bar("student"))
    return student


def with_windows(canvases: Canvases) -> Canvases:
    """Images as large as canvases are: smaller ones extended by reflection."""
    height, width = (max(0, whole - side) // 2 for whole, side in zip(CANVAS, canvases.shape[2:], strict=True))
    return functional.pad(canvases.float(), (width, width, height, height), mode="reflect").to(torch.uint8)


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
