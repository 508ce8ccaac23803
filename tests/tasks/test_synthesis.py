"""Shard-rounds: whose labels and canvases they start from, and which classes they are of."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from threading import Event

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from flows.config_file import read_config
from nas_core.synthesis.labels import entropy
from storage.checkpoints import load_checkpoint
from storage.dataset import SyntheticStore
from storage.manifests import Manifest
from tasks import synthesis
from tasks.building import load_teacher
from tasks.run import Run
from tasks.stage import Product
from tasks.stages import initialise_noise, learn_engine, synthesize
from tasks.stopping import STOP, StoppedError

PROJECT = Path(__file__).parents[2]
SMALL = (
    "synthesis.shards=1",
    "synthesis.batch_size=10",
    "synthesis.rounds=2",
    "evaluation.data=null",
    "search.validation_fraction=0.5",
    f"teacher.weights={PROJECT / 'examples' / 'digits' / 'teacher.safetensors'}",
)
PIXELS = "synthesis.engine.stages=[{iterations: 21}]"
GENERATOR = "synthesis.engine={name: generator, steps: 6, snapshots: 2, warmup: 1, adaptation: 3, latent: 8, width: 4}"


def run_in(directory: Path, *settings: str) -> Run:
    """A new run, whose config fits its teacher."""
    config = read_config(PROJECT / "configs" / "digits.yaml", (*SMALL, *settings))
    directory.mkdir()
    teacher = load_teacher(config.teacher, config.device)
    return Run(directory=str(directory), config=config, fingerprint=teacher.fingerprint())


def synthesised(directory: Path, *settings: str) -> SyntheticStore:
    """Both rounds of one shard, without Prefect."""
    run = run_in(directory, *settings)
    noise = initialise_noise.work(run, "noise", "key")
    for number in range(2):
        product = synthesize.work(run, f"synthesis-{number}", "key", noise, round=number, shard=0)
        assert {"label_entropy", "label_confidence", "top1_drift", "top5_overlap"} <= product.figures.keys()
    return SyntheticStore.open(run.layout.dataset)


def test_targets_of_a_round_are_the_labels_of_the_round_before(tmp_path: Path):
    store = synthesised(tmp_path / "run", PIXELS)
    assert sorted(store.read(0, 0, "targets").argmax(1)) == list(range(10))
    assert np.array_equal(store.read(1, 0, "targets"), store.read(0, 0, "soft_labels"))


def test_only_chosen_classes_are_asked_for(tmp_path: Path):
    settings = ("synthesis.classes=[3, '8']", PIXELS)
    classes = synthesised(tmp_path / "run", *settings).read(0, 0, "targets").argmax(1)
    assert np.bincount(classes).tolist() == [0, 0, 0, 5, 0, 0, 0, 0, 5]


@pytest.mark.parametrize(("start", "same"), [("canvas", True), ("noise", False)])
def test_a_round_starts_from_noise_or_from_the_canvases_before(tmp_path: Path, start: str, same: bool):
    """Steps of almost no length leave the canvases where they started."""
    settings = (f"synthesis.labels.start={start}", "synthesis.engine.learning_rate=1e-9", PIXELS)
    store = synthesised(tmp_path / "run", *settings)
    assert np.array_equal(store.read(1, 0, "canvases"), store.read(0, 0, "canvases")) is same


def learned_by(run: Run, noise: Product) -> Product:
    """What the engine has learned, with the manifest by which shards know it."""
    learned = learn_engine.work(run, "learn", "key", noise)
    manifest = Manifest(piece="learn", key="key", digest=learned.digest, files={}, figures={}, seconds=0.0)
    manifest.write(run.layout.manifest("learn"))
    return learned


def test_shards_of_the_generator_are_drawn_by_what_was_learned(tmp_path: Path):
    """Learned again, the artifact and the shards have the same digests; with another seed, others."""
    digests = []
    for name, seed in (("one", 0), ("two", 0), ("other", 1)):
        run = run_in(tmp_path / name, GENERATOR, f"seed={seed}")
        learned = learned_by(run, initialise_noise.work(run, "noise", "key"))
        assert learned.figures["step"] == 5
        assert learned.files[0] == run.layout.learned
        shards = [
            synthesize.work(run, f"synthesis-{number}", "key", learned, round=number, shard=0) for number in (0, 1)
        ]
        digests.append((learned.digest, *(shard.digest for shard in shards)))
        store = SyntheticStore.open(run.layout.dataset)
        assert np.array_equal(store.read(1, 0, "targets"), store.read(0, 0, "soft_labels"))
    assert digests[0] == digests[1]
    assert not set(digests[0]) & set(digests[2])


def test_labels_are_met_at_the_temperature_that_they_were_made_at(tmp_path: Path):
    """Where no step moves anything, the logits of both rounds are 4 x log(labels of the first), up to a constant.

    So one-hot targets, at temperature 1, cost what these logits give their classes; the labels cost their own entropy.
    """
    settings = (
        "synthesis.canvas=[8, 8]", "synthesis.labels={temperature: 4, windows: 1, start: canvas}",
        "synthesis.engine.learning_rate=1e-9", "synthesis.engine.warmup=0", "synthesis.engine.stages=[{iterations: 2}]",
    )  # fmt: skip
    store = synthesised(tmp_path / "run", *settings)
    labels = torch.from_numpy(store.read(0, 0, "soft_labels"))
    classes = torch.from_numpy(store.read(0, 0, "targets")).argmax(1)
    hard, soft = (torch.from_numpy(store.read(number, 0, "losses")) for number in range(2))
    torch.testing.assert_close(hard, cross_entropy(4 * labels.log(), classes, reduction="none"), rtol=0, atol=0.02)
    torch.testing.assert_close(soft, entropy(labels), rtol=0, atol=0.02)


def test_shards_start_from_noise_of_their_own(tmp_path: Path):
    """A step of almost no length leaves the noise as it is, whatever the class."""
    settings = (
        "synthesis.shards=2", "synthesis.engine.learning_rate=1e-9", "synthesis.engine.warmup=0",
        "synthesis.engine.stages=[{iterations: 1}]",
    )  # fmt: skip
    run = run_in(tmp_path / "run", *settings)
    noise = initialise_noise.work(run, "noise", "key")
    for shard in range(2):
        synthesize.work(run, f"synthesis-{shard}", "key", noise, round=0, shard=shard)
    store = SyntheticStore.open(run.layout.dataset)
    first, second = (store.read(0, shard, "canvases") for shard in range(2))
    assert not np.array_equal(first, second)


@pytest.fixture
def stop() -> Iterator[Event]:
    """What tells the work in this process to end; taken back afterwards."""
    yield STOP
    STOP.clear()


@pytest.mark.parametrize(
    ("engine", "piece"),
    [(PIXELS, "synthesis"), (GENERATOR, "learn"), (GENERATOR, "synthesis")],
    ids=["pixels", "learning", "generator"],
)
def test_work_that_was_stopped_goes_on_from_the_file_that_it_left(
    engine: str, piece: str, stop: Event, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Told to end, it ends after its first step; the next attempt begins with the second, and ends with equal bytes."""
    run = run_in(tmp_path / "run", engine)
    noise = initialise_noise.work(run, "noise", "key")
    if piece == "learn":
        work = partial(learn_engine.work, run, piece, "key", noise)
    else:
        before = learned_by(run, noise) if run.config.synthesis.engine.learns else noise
        work = partial(synthesize.work, run, piece, "key", before, round=0, shard=0)
    steps: list[int] = []
    monkeypatch.setattr(synthesis, "task_progress", lambda *_: lambda done, *_: steps.append(done))
    straight = work()
    assert steps == [*range(1, len(steps) + 1)]

    stop.set()
    with pytest.raises(StoppedError):
        work()
    stop.clear()
    saved = load_checkpoint(run.layout.checkpoint(piece), "key")
    assert saved is not None
    assert saved["step"] == 1
    straight_steps = steps.copy()
    steps.clear()
    assert work().digest == straight.digest
    assert steps == straight_steps[1:]
