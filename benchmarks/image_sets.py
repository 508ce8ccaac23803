"""Sets of images that benchmarks compare: of an engine, in a number or a time; noise; real ones; those of a run."""

import argparse
import dataclasses
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm

from benchmarks.common import CLASSES, Canvases, read_images
from nas_core.checkpoint import Checkpoint, Progress
from nas_core.seeding import generator
from nas_core.settings.synthesis import GeneratorSpec, LabelCalibration, LossWeights, PixelSpec, PixelStage
from nas_core.synthesis.build import build_engine
from nas_core.synthesis.config import SynthesisConfig
from nas_core.synthesis.engine import SynthesisEngine
from nas_core.synthesis.labels import one_hot, shard_classes
from nas_core.synthesis.shard import ShardImages
from nas_core.teachers import Teacher
from storage.dataset import SyntheticImages, SyntheticStore
from storage.files import read_json, write_bytes
from storage.layout import RunLayout

SHARD = {"pixels": 128, "generator": 256}
CANVAS = (36, 36)
MOST_IMAGES = 51_200  # of an engine that could draw for ever
PAPER_LABELS = LabelCalibration.model_validate("paper")
# Of the prototype that the project started from; the same for all rows, so that rows differ in one thing each.
LOSSES = LossWeights(batch_norm=1.0, total_variation=1e-3)


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


def kept_set(name: str, seed: int, made_by: str, teacher: Teacher, arguments: argparse.Namespace) -> ImageSet:
    """A row's images: those that the folder has of the same digest, or new ones."""
    if name == "run":
        dataset = RunLayout(arguments.run).dataset
        images, engine = SyntheticImages(dataset), SyntheticStore.open(dataset).provenance["synthesis"]["engine"]
        learning = engine["steps"] if engine["name"] == "generator" else 0
        return ImageSet(images.canvases, images.targets, learning, seconds_of_run(arguments.run))
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
    if name in ("generator", "refined"):
        refinement = {"refinement": {}} if name == "refined" else {}
        engine: PixelSpec | GeneratorSpec = GeneratorSpec.model_validate(
            {"steps": arguments.generator_steps, "compile": arguments.compile, **refinement}
        )
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


def bar(description: str) -> Progress:
    """A progress bar on a terminal."""
    shown = tqdm(desc=description, disable=None, leave=False)

    def progress(done: int, total: int, figures: dict[str, float]) -> None:
        shown.total = total
        shown.set_postfix(figures, refresh=False)
        shown.update(done - shown.n)

    return progress


def with_windows(canvases: Canvases) -> Canvases:
    """Images as large as canvases are: smaller ones extended by reflection."""
    height, width = (max(0, whole - side) // 2 for whole, side in zip(CANVAS, canvases.shape[2:], strict=True))
    return functional.pad(canvases.float(), (width, width, height, height), mode="reflect").to(torch.uint8)
