"""What a run will take on this machine, from a few steps of each of its stages.

The very code of the stages runs on a few images until it has shown its pace; the rest is multiplication. Good to about
a factor of two: other work on the machine, caches and clocks see to that.
"""

import contextlib
import functools
import math
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nas_core.checkpoint import Checkpoint, Progress
from nas_core.config import RunConfig
from nas_core.evaluation.data import LabelledImages
from nas_core.evaluation.dataset_quality import JUDGED_IMAGES
from nas_core.memory import (
    DEVICE_SHARE,
    PEAK_FACTOR,
    canvas_bytes,
    canvas_memory,
    learned_bytes,
    module_activations,
    shard_bytes,
    total_memory,
)
from nas_core.search_spaces import SearchSpace, spaces
from nas_core.seeding import generator
from nas_core.settings.strategies import ScoresSpec
from nas_core.settings.synthesis import ImportedSpec, PixelSpec
from nas_core.strategies import Budget, SearchTask, make_budget, strategies
from nas_core.strategies.rating import Rating
from nas_core.strategies.spos import Spos
from nas_core.strategies.successive_halving import SuccessiveHalving
from nas_core.strategies.training_free import TrainingFree, TrainingFreeRating
from nas_core.synthesis.build import build_engine
from nas_core.synthesis.engine import SynthesisEngine
from nas_core.synthesis.labels import one_hot
from nas_core.teachers import Teacher
from nas_core.training.batches import SyntheticBatches
from nas_core.training.retraining import augmentation, retrain

PATIENCE = 2.0  # seconds that each measurement may take, unless its first step takes longer
STEP_SECONDS = 0.5  # images per probed step are so few that one takes about this long
PROBED_BATCHES = 2
PROBED_IMAGES = 16  # real ones, to see how long reading takes
REPORT_BYTES = 8 * 2**20  # report, figures, records and log


@dataclass(frozen=True)
class Estimate:
    """What a run will take.

    Attributes:
        seconds: By stage: "synthesis", "search", "retraining", "baselines" and "finetuning" if there are any,
            "evaluation".
        memory: Peak of the device's memory, in bytes.
        memory_there: The device's memory, in bytes.
        disk: Size of the run directory, in bytes.
    """

    seconds: dict[str, float]
    memory: int
    memory_there: int
    disk: int

    @property
    def total(self) -> float:
        """Seconds of the whole run."""
        return sum(self.seconds.values())


def estimate(
    config: RunConfig,
    teacher: Teacher,
    space: SearchSpace,
    learned: LabelledImages | None = None,
    judging: LabelledImages | None = None,
) -> Estimate:
    """Measure for about ten seconds, more where a single step takes longer, and multiply.

    Args:
        config: A valid config.
        teacher: Its teacher, on the device where the run will happen.
        space: Its search space.
        learned: The images of `finetune.data`, if there are any.
        judging: The images of `evaluation.data`, if there are any.
    """
    pace = _forward_pace(teacher)
    # A step is a forward and a backward pass: about three forward passes.
    probed = max(2, int(STEP_SECONDS / (3 * pace)))
    images = config.synthesis.images
    retraining = _retrain_seconds(config, teacher, space, probed)
    seconds = {
        "synthesis": _synthesis_seconds(config, teacher, probed, pace),
        "search": _search_seconds(config, teacher, space, probed),
        "retraining": retraining,
        # They cost what the found network costs, and learn alike.
        **({"baselines": len(config.baselines) * retraining} if config.baselines else {}),
        **({"finetuning": _finetune_seconds(config, retraining, len(learned))} if learned else {}),
        "evaluation": 2 * pace * (min(images, JUDGED_IMAGES) + images * (1 + config.evaluation.held_out))
        + (_judging_seconds(config, pace, judging) if judging else 0.0),
    }
    return Estimate(
        seconds, _memory(config, teacher, space), total_memory(teacher.device), _disk(config, teacher, space)
    )


class _Enough(Exception):  # noqa: N818 - a signal, no error
    """The pace is known."""


def _pace_of(work: Callable[[Progress], object], device: torch.device) -> tuple[float, int]:
    """Seconds per step of a piece of work, and how many steps it has; stops early, and does not count the first."""
    ticks: list[float] = []
    steps = 1

    def progress(_done: int, total: int, _figures: dict[str, float]) -> None:
        nonlocal steps
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        steps = total
        ticks.append(time.perf_counter())
        elapsed = ticks[-1] - start
        if (len(ticks) >= 3 and elapsed > PATIENCE) or elapsed > 2 * PATIENCE:
            raise _Enough

    start = time.perf_counter()
    with contextlib.suppress(_Enough):
        work(progress)
    ticks = ticks or [time.perf_counter()]
    if len(ticks) == 1:
        return ticks[0] - start, steps
    return (ticks[-1] - ticks[0]) / (len(ticks) - 1), steps


def _forward_pace(teacher: Teacher) -> float:
    """Seconds of the teacher for one image, in the smallest batch of powers of two that takes a tenth of a second."""
    batch, seconds = 1, 0.0
    while seconds < 0.1 and batch < 256:
        batch *= 2
        images = torch.zeros(batch, *teacher.input_shape, device=teacher.device)
        start = time.perf_counter()
        teacher.logits(images).cpu()
        seconds = time.perf_counter() - start
    return seconds / batch


def _synthesis_seconds(config: RunConfig, teacher: Teacher, probed: int, pace: float) -> float:
    synthesis = config.synthesis
    batch, pieces = min(probed, synthesis.batch_size), synthesis.rounds * synthesis.shards
    scale, engine = synthesis.batch_size / batch, synthesis.engine
    labels = pace * synthesis.batch_size * synthesis.labels.windows
    if isinstance(engine, ImportedSpec):
        return pieces * labels
    if isinstance(engine, PixelSpec):
        return pieces * (scale * _pixel_seconds(config, engine, teacher, batch) + labels)
    made, classes = build_engine(teacher, synthesis), torch.arange(teacher.num_classes)
    per_step, steps = _pace_of(lambda p: made.learn(classes, batch, config.seed, Checkpoint(), p), teacher.device)
    refinement = _pixel_seconds(config, engine.refinement, teacher, batch) if engine.refinement else 0.0
    # Drawing takes the generator alone, once: no more than a step of learning.
    shard = scale * (per_step * (1 + engine.adaptation) + refinement) + labels
    return scale * per_step * steps + pieces * shard


def _pixel_seconds(config: RunConfig, engine: PixelSpec, teacher: Teacher, batch: int) -> float:
    """Seconds of all steps of the pixel engine on so many images; each stage has a pace of its own."""
    targets = one_hot(torch.arange(batch) % teacher.num_classes, teacher.num_classes)
    seconds = 0.0
    for stage in engine.stages:
        alone = engine.model_copy(update={"stages": (stage,), "warmup": 0})
        made = build_engine(teacher, config.synthesis.model_copy(update={"engine": alone}))
        draws = generator(config.seed, "estimate.shard")
        per_step, steps = _pace_of(functools.partial(_make, made, targets, draws), teacher.device)
        seconds += per_step * steps
    return seconds


def _make(engine: SynthesisEngine, targets: Tensor, draws: torch.Generator, progress: Progress) -> None:
    engine.make(targets, draws, progress=progress)


def _search_seconds(config: RunConfig, teacher: Teacher, space: SearchSpace, probed: int) -> float:
    """Steps of the strategy on a few images, and the ratings of one that evolves."""
    search, (_, validation, train) = config.search, config.split
    batch = min(probed, search.batch_size, train)
    task = SearchTask(
        space=space,
        train=_batches(config, teacher, PROBED_BATCHES * batch, batch),
        validation=_batches(config, teacher, batch, batch),
        budget=_budget(config),
        temperature=search.temperature,
        seed=config.seed,
        device=teacher.device,
    )
    strategy = strategies.build(search.strategy)
    per_step, steps = _pace_of(lambda progress: strategy.search(task, Checkpoint(), progress), teacher.device)
    if isinstance(strategy, TrainingFree):
        return per_step * steps
    batches, scale = train // min(search.batch_size, train), min(search.batch_size, train) / batch
    ratings = 0
    rating = 0.0
    if isinstance(strategy, Spos):
        ratings = strategy.evolution.generations * strategy.evolution.population
        passes = strategy.recalibration_batches + math.ceil(validation / search.batch_size)
        rating = _rating_pace(task) * scale * passes
        if strategy.training_free:
            rating += _scores_pace(task, strategy.training_free)
    prior = strategy.prior if isinstance(strategy, Spos | SuccessiveHalving) else None
    drawing = 0.0 if prior is None else prior.pool * _scores_pace(task, prior)
    return per_step * scale * (steps - ratings) * batches / PROBED_BATCHES + ratings * rating + drawing


def _scores_pace(task: SearchTask, spec: ScoresSpec) -> float:
    """Seconds of rating one architecture without training."""
    rate = TrainingFreeRating.of(spec, task)
    start = time.perf_counter()
    rate(task.space.sample(generator(task.seed, "estimate.scores")))
    return time.perf_counter() - start


def _rating_pace(task: SearchTask) -> float:
    """Seconds per batch of rating one path of a supernet."""
    rate = functools.partial(Rating(task, recalibration_batches=1), task.supernet())
    path = task.space.best(
        [[0.0] * len(slot.operations) for slot in task.space.slots], task.budget.limit, task.budget.table(task.space)
    )
    rate(path)
    start = time.perf_counter()
    rate(path)
    return (time.perf_counter() - start) / 2


def _retrain_seconds(config: RunConfig, teacher: Teacher, space: SearchSpace, probed: int) -> float:
    images = config.synthesis.images - config.split.held_out
    full = min(config.retrain.batch_size, images)
    batch = min(probed, full)
    network = _retrained(config, teacher, space)
    batches = _batches(config, teacher, PROBED_BATCHES * batch, batch)
    batches.augmentation = augmentation(config.retrain)
    per_step, steps = _pace_of(
        lambda progress: retrain(network, batches, config.retrain, config.seed, Checkpoint(), progress),
        teacher.device,
    )
    return per_step * steps * (full / batch) * (images // full) / PROBED_BATCHES


def _finetune_seconds(config: RunConfig, retraining: float, images: int) -> float:
    """An image takes what it takes in retraining, at most: there the teacher labels it, too."""
    assert config.finetune is not None
    seen = config.retrain.epochs * (config.synthesis.images - config.split.held_out)
    return retraining * config.finetune.epochs * images / seen


def _judging_seconds(config: RunConfig, pace: float, images: LabelledImages) -> float:
    """Every network reads all of the images anew, and takes at most as long as the teacher for each."""
    networks = 2 + len(config.baselines) + (config.finetune is not None)
    images.load(0)  # The first may open what all are in.
    probe = min(PROBED_IMAGES, len(images))
    start = time.perf_counter()
    next(images.batches(probe))
    reading = (time.perf_counter() - start) / probe
    return networks * len(images) * (reading + pace)


def _retrained(config: RunConfig, teacher: Teacher, space: SearchSpace) -> nn.Module:
    """The dearest architecture in the size of retraining."""
    spec = config.search.space.scaled(config.retrain.width, config.retrain.cells)
    large = spaces.build(spec, input_shape=teacher.input_shape, num_classes=teacher.num_classes)
    return large.network(space.architecture(_dearest(config, space))).to(teacher.device)


def _dearest(config: RunConfig, space: SearchSpace) -> tuple:
    """The architecture that uses most of the budget."""
    budget = _budget(config)
    most = [list(map(float, row)) for row in space.macs_table.operations]
    return space.best(most, budget.limit, budget.table(space))


def _budget(config: RunConfig) -> Budget:
    search = config.search
    return make_budget(search.max_macs, search.max_parameters, search.max_latency_ms, search.latency_table)


def _batches(config: RunConfig, teacher: Teacher, images: int, batch: int) -> SyntheticBatches:
    return SyntheticBatches(_noise(config, teacher, images), teacher, batch)


def _noise(config: RunConfig, teacher: Teacher, images: int) -> Tensor:
    shape = (images, teacher.input_shape[0], *config.synthesis.canvas_size(teacher.input_shape))
    return torch.randint(256, shape, dtype=torch.uint8, generator=generator(0, "estimate.canvases"))


def _memory(config: RunConfig, teacher: Teacher, space: SearchSpace) -> int:
    """The larger of a shard and of a training step beside the canvases, over what this process has already."""
    network = _retrained(config, teacher, space).eval()
    step = module_activations(network, teacher.input_shape) * max(config.search.batch_size, config.retrain.batch_size)
    canvases = config.synthesis.images * canvas_bytes(teacher, config.synthesis)
    if teacher.device.type == "cuda":
        present = torch.cuda.memory_allocated(teacher.device)
        canvases = canvases if canvases <= total_memory(teacher.device) // DEVICE_SHARE else 0
    else:
        canvases = min(2 * canvases, canvas_memory(config.execution))
        unit = 1 if sys.platform == "darwin" else 1024
        present = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    # Training keeps float32 or bfloat16 activations and their gradients: 4 bytes each on the whole.
    return present + max(PEAK_FACTOR * shard_bytes(teacher, config.synthesis), 4 * step + canvases)


def _disk(config: RunConfig, teacher: Teacher, space: SearchSpace) -> int:
    """Dataset without compression, what the engine learned, the largest checkpoint, and the report."""
    synthesis, canvas = config.synthesis, canvas_bytes(teacher, config.synthesis)
    # Targets and soft labels in float32, round and loss of each image.
    dataset = synthesis.images * (canvas + 2 * 4 * teacher.num_classes + 8)
    with torch.device("meta"):
        weights = 4 * sum(parameter.numel() for parameter in space.supernet().parameters())
    # Weights and momentum; canvas and Adam's two moments; the snapshots so far.
    learned = learned_bytes(teacher, synthesis)
    checkpoint = max(2 * weights, synthesis.batch_size * canvas * 4 * 3, learned)
    return dataset + learned + checkpoint + REPORT_BYTES
