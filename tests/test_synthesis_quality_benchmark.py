"""The benchmark of synthesis gives an engine its time, and takes no kept images for others."""

import argparse
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from doubles import halves
from safetensors.torch import load_file

from benchmarks import image_sets
from benchmarks import synthesis_quality as benchmark
from nas_core.seeding import generator
from nas_core.settings.synthesis import GeneratorSpec
from nas_core.teachers import Teacher

ASKED = {
    "count": 256, "minutes": None, "generator_steps": 40, "iterations": 20, "compile": False, "test_images": 100,
    "retrain": "", "steps": 10,
}  # fmt: skip


def asked(**changes) -> argparse.Namespace:
    return argparse.Namespace(**(ASKED | changes))


@pytest.mark.parametrize(
    ("images", "steps", "epochs", "mixed"),
    [(12_032, 1200, 13, 0), (12_032, 4800, 51, 1), (1024, 1200, 150, 1), (44_800, 6000, 50, 0)],
)
def test_steps_are_rounded_to_whole_epochs(images: int, steps: int, epochs: int, mixed: float):
    """Of 128 images each: 94 batches 13 times are 1,222 steps. What is seen fifty times is mixed.

    Of a set with more than 120 batches an epoch has 120, so that the warm-up of one is short.
    """
    recipe = benchmark.distillation(images, asked(steps=steps))
    assert (recipe.epochs, recipe.mixup) == (epochs, mixed)


def test_an_epoch_of_a_large_set_is_a_random_part_of_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(benchmark, "LONGEST_EPOCH", 2)
    canvases = torch.arange(64, dtype=torch.uint8).reshape(64, 1, 1, 1).expand(64, 1, 8, 8)
    batches = benchmark.ShortEpochs(canvases, halves(8), 4)
    epochs = [
        torch.cat([batch.images[:, 0, 0, 0] for batch in batches.epoch(generator(seed, "toy"))]) for seed in range(2)
    ]
    assert len(batches) == 2
    assert [len(set(epoch.tolist())) for epoch in epochs] == [8, 8]
    assert set(epochs[0].tolist()) != set(epochs[1].tolist())


def test_a_short_time_gives_an_engine_that_can_be_built():
    """Fewer steps than the default has snapshots and warm-up."""
    spec = GeneratorSpec(latent=4, width=2)
    assert image_sets.affordable_engine(spec, halves(8), 1e-6) == spec.model_copy(
        update={"steps": 1, "snapshots": 1, "warmup": 0}
    )
    assert image_sets.affordable_engine(spec, halves(8), 3600.0).steps > 100


def test_kept_images_are_those_of_the_same_settings(tmp_path: Path, monkeypatch):
    made = []

    def make_set(name, seed, _teacher, arguments):
        made.append((name, seed, arguments.minutes))
        return image_sets.ImageSet(torch.zeros(2, 1, 36, 36, dtype=torch.uint8), torch.eye(2), learning_steps=7)

    monkeypatch.setattr(image_sets, "make_set", make_set)
    teacher, usual = halves(8), asked(keep=tmp_path)

    def kept(seed: int, teacher: Teacher, arguments: argparse.Namespace) -> image_sets.ImageSet:
        made_by = benchmark.identity("generator", seed, teacher, arguments)["made_by"]
        return image_sets.kept_set("generator", seed, made_by, teacher, arguments)

    first, again = (kept(0, teacher, usual) for _ in range(2))
    assert len(made) == 1
    assert again.learning_steps == first.learning_steps == 7
    assert again.seconds == pytest.approx(first.seconds)
    assert torch.equal(again.canvases, first.canvases)
    kept(1, teacher, usual)
    kept(0, teacher, asked(minutes=2.0, keep=tmp_path))
    monkeypatch.setitem(image_sets.SHARD, "generator", 128)
    kept(0, teacher, usual)
    other = halves(8)
    other.module.scale.data.fill_(5.0)
    kept(0, other, usual)
    assert made == [
        ("generator", seed, minutes) for seed, minutes in ((0, None), (1, None), (0, 2.0), (0, None), (0, None))
    ]
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
        yield SimpleNamespace(canvases=torch.zeros(256, 1, 36, 36), targets=torch.zeros(256, 10))

    monkeypatch.setattr(image_sets, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    monkeypatch.setattr(image_sets, "build_engine", lambda *_: Engine())
    monkeypatch.setattr(image_sets, "affordable_engine", lambda spec, *_: spec.model_copy(update={"steps": 33}))
    monkeypatch.setattr(image_sets, "shard_rounds", shard_rounds)
    made = image_sets.make_set("generator", 0, halves(8), asked(minutes=1.0))
    assert len(made.canvases) == 2 * 256
    assert made.learning_steps == 33


def test_a_distillation_takes_settings_of_retraining():
    usual = benchmark.distillation(256, asked())
    changed = benchmark.distillation(256, asked(retrain="average_decay=0.99 color_jitter=1"))
    assert changed == usual.model_copy(update={"average_decay": 0.99, "color_jitter": 1.0})


COMMAND = ["synthesis_quality", "--weights", "w", "--images", "i", "--json", "rows.json"]


@pytest.mark.parametrize("change", ["batch_size=64", "epochs=3", "colour_jitter=1", "mixup"])
def test_settings_that_the_benchmark_would_ignore_are_refused(change: str, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", [*COMMAND, "--retrain", change])
    with pytest.raises(SystemExit):
        benchmark.parse_arguments()
    assert f"--retrain {change}: give FIELD=VALUE" in capsys.readouterr().err


def test_rows_that_are_there_are_not_measured_again(tmp_path: Path, monkeypatch, capsys):
    """The table has one line for two seeds; rows of another distillation are others; those of old files are refused."""
    measured = []

    def measure(name, seed, teacher, _test, arguments):
        measured.append((name, seed, arguments.retrain))
        figures = {field: getattr(arguments, field) for field in benchmark.SYNTHESISED}
        figures |= {"set": name, "seed": seed, "images": 256, "student_top1": 0.5 + seed / 10, "synthesis_seconds": 1.0}
        figures |= {"learning_steps": 7 + seed, "epochs": 5, "mixup": 0.0}
        figures["quality"] = {field: 0.5 for field, *_ in benchmark.MEASURES.values()}
        return figures | benchmark.identity(name, seed, teacher, arguments)

    monkeypatch.setattr(benchmark, "measure", measure)
    monkeypatch.setattr(benchmark, "load_teacher", lambda _: halves(8))
    monkeypatch.setattr(benchmark, "read_images", lambda *_: None)
    file = tmp_path / "rows.json"
    command = [*COMMAND[:-1], str(file), "--rows", "generator", "--seeds", "0", "1"]
    for more in ((), (), ("--retrain", "color_jitter=1")):
        monkeypatch.setattr("sys.argv", [*command, *more])
        benchmark.main()
    assert measured == [("generator", seed, retrain) for retrain in ("", "color_jitter=1") for seed in (0, 1)]
    lines = capsys.readouterr().out.strip().splitlines()[-2:]
    assert "| 7/8 | 1200 | 5 | 55.0 ± 7.1 |" in lines[0]
    assert "(retrain: color_jitter=1)" in lines[1]
    file.write_text('{"rows": [{"set": "noise"}]}')
    with pytest.raises(SystemExit, match="earlier version"):
        benchmark.main()
