"""The benchmark of synthesis gives an engine its time, and takes no kept images for others."""

import argparse
from pathlib import Path

import pytest
import torch
from doubles import halves
from pydantic import ValidationError
from safetensors.torch import load_file

from benchmarks import synthesis_quality as benchmark
from nas_core.settings.synthesis import GeneratorSpec

ASKED = {
    "count": 256, "minutes": None, "generator_steps": 40, "iterations": 20, "compile": False, "test_images": 100,
    "retrain": "", "steps": 10,
}  # fmt: skip


@pytest.mark.parametrize(("images", "steps", "epochs"), [(12_032, 1200, 13), (12_032, 4800, 51), (1024, 1200, 150)])
def test_steps_are_rounded_to_whole_passes(images: int, steps: int, epochs: int):
    """Of 128 images each: 94 batches 13 times are 1,222 steps."""
    assert benchmark.epochs_of(images, steps) == epochs


def test_a_short_time_gives_an_engine_that_can_be_built():
    """Fewer steps than the default has snapshots and warm-up."""
    spec = GeneratorSpec(latent=4, width=2)
    assert benchmark.affordable_engine(spec, halves(8), 1e-6) == spec.model_copy(
        update={"steps": 1, "snapshots": 1, "warmup": 0}
    )
    assert benchmark.affordable_engine(spec, halves(8), 3600.0).steps > 100


def test_kept_images_are_those_of_the_same_settings(tmp_path: Path, monkeypatch):
    made = []

    def make_set(name, seed, _teacher, arguments):
        made.append((name, seed, arguments.minutes))
        return benchmark.ImageSet(torch.zeros(2, 1, 36, 36, dtype=torch.uint8), torch.eye(2), learning_steps=7)

    monkeypatch.setattr(benchmark, "make_set", make_set)
    teacher, asked = halves(8), argparse.Namespace(**ASKED, keep=tmp_path)
    first, again = (benchmark.kept_set("generator", 0, teacher, asked) for _ in range(2))
    assert len(made) == 1
    assert again.learning_steps == first.learning_steps == 7
    assert again.seconds == pytest.approx(first.seconds)
    assert torch.equal(again.canvases, first.canvases)
    benchmark.kept_set("generator", 1, teacher, asked)
    benchmark.kept_set("generator", 0, teacher, argparse.Namespace(**(ASKED | {"minutes": 2.0}), keep=tmp_path))
    monkeypatch.setitem(benchmark.SHARD, "generator", 128)
    benchmark.kept_set("generator", 0, teacher, asked)
    assert made == [("generator", 0, None), ("generator", 1, None), ("generator", 0, 2.0), ("generator", 0, None)]
    assert all({"canvases", "targets", "seconds", "learning_steps"} == load_file(f).keys() for f in tmp_path.iterdir())


def test_an_engine_stops_nearest_to_its_time(monkeypatch):
    """Learning takes 15 of 60 s and a shard 20 s: two shards end at 55 s, a third would end farther off, at 75 s."""
    clock = [0.0]

    class Engine:
        def learn(self, *_):
            clock[0] += 15
            return {}, []

        def load(self, _learned):
            pass

    def shard_rounds(*_):
        clock[0] += 20
        yield argparse.Namespace(canvases=torch.zeros(256, 1, 36, 36), targets=torch.zeros(256, 10))

    monkeypatch.setattr(benchmark.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(benchmark, "build_engine", lambda *_: Engine())
    monkeypatch.setattr(benchmark, "affordable_engine", lambda spec, *_: spec.model_copy(update={"steps": 33}))
    monkeypatch.setattr(benchmark, "shard_rounds", shard_rounds)
    made = benchmark.make_set("generator", 0, halves(8), argparse.Namespace(**(ASKED | {"minutes": 1.0})))
    assert len(made.canvases) == 2 * 256
    assert made.learning_steps == 33


def test_a_distillation_takes_settings_of_retraining(monkeypatch):
    """A mistyped one is refused by the config itself."""
    seen = []
    monkeypatch.setattr(benchmark, "retrain", lambda _student, _data, config, *_: seen.append(config))
    canvases = torch.zeros(256, 3, 36, 36, dtype=torch.uint8)
    for given in ("", "average_decay=0.99 color_jitter=1"):
        benchmark.distil(canvases, halves(8), 0, argparse.Namespace(**(ASKED | {"retrain": given})))
    assert [(config.average_decay, config.color_jitter) for config in seen] == [(0, 0), (0.99, 1)]
    assert seen[1] == seen[0].model_copy(update={"average_decay": 0.99, "color_jitter": 1.0})
    with pytest.raises(ValidationError, match="colour_jitter"):
        benchmark.distil(canvases, halves(8), 0, argparse.Namespace(**(ASKED | {"retrain": "colour_jitter=1"})))
