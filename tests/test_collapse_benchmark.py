"""The benchmark of collapse runs to its end, on true labels, and takes no kept run for one of other settings."""

import argparse
import io
import itertools
import json
import sys
import tarfile
from pathlib import Path

import pytest
import torch
from PIL import Image

from benchmarks import collapse as benchmark
from nas_core.search_spaces.nasbench201 import EDGES, OPERATIONS, NasBench201
from nas_core.seeding import generator

SPACE = NasBench201(channels=4, cells=1, input_shape=(3, 8, 8), num_classes=10)
SMALL = {"count": 24, "side": 8, "channels": 4, "cells": 1, "batch": 4, "epochs": 1}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Options that name images whose brightness is their class, and a table in which all networks are alike."""
    folder = tmp_path_factory.mktemp("collapse")
    with tarfile.open(folder / "images.tar", "w") as archive:
        for (index, label), number in itertools.product(enumerate(benchmark.CLASSES), range(3)):
            content = io.BytesIO()
            Image.new("RGB", (32, 32), (25 * index,) * 3).save(content, "PNG")
            entry = tarfile.TarInfo(f"train/{label}/{number}.png")
            entry.size = len(content.getvalue())
            archive.addfile(entry, io.BytesIO(content.getvalue()))
    cells = (SPACE.notation(operations) for operations in itertools.product(OPERATIONS, repeat=len(EDGES)))
    (folder / "table.csv").write_text("\n".join(["arch,cifar10_test_acc_200ep", *(f"{cell},90" for cell in cells)]))
    return ["--images", str(folder / "images.tar"), "--table", str(folder / "table.csv")]


def asked(monkeypatch, *options: str, **changes: object) -> argparse.Namespace:
    """The command line, parsed."""
    sizes = [f"--{name}={value}" for name, value in (SMALL | changes).items()]
    monkeypatch.setattr(sys, "argv", ["collapse", "--json=unused.json", *sizes, *options])
    return benchmark.parse_arguments()


@pytest.mark.parametrize("method", ["darts", "sdarts-rs", "pc-darts"])
def test_a_search_of_one_epoch_gets_to_its_end(files: list[str], tmp_path: Path, monkeypatch, method: str):
    """The last epoch rates the mixture, on labels that no teacher gives."""
    asked(monkeypatch, *files, "--json", str(tmp_path / "out.json"), "--methods", method, "--seeds", "0")
    benchmark.main()
    (run,) = json.loads((tmp_path / "out.json").read_text())["runs"]
    assert (run["method"], run["accuracy"], len(run["epochs"])) == (method, 90, 1)
    monkeypatch.setattr(benchmark, "search", None)
    benchmark.main()


def test_images_keep_their_labels_shuffled_or_not(files: list[str], monkeypatch):
    """Edges, into which images may have moved, are black."""
    work = benchmark.make_task(asked(monkeypatch, *files), seed=0)
    for data in (work.train, work.validation):
        for batch in (*data.epoch(generator(0, "test")), *data.fixed()):
            seen = work.train.teacher.to_bytes(batch.images).amax(dim=(1, 2, 3)) / 25
            assert torch.equal(batch.teacher_logits.argmax(1), seen.long())


def test_runs_of_other_settings_are_not_taken_for_done(monkeypatch):
    def setting(method: str = "darts", **changes: object) -> dict:
        return benchmark.setting(method, asked(monkeypatch, **changes))

    usual = setting()
    assert json.loads(json.dumps(usual)) == usual == setting()
    assert setting(channels=8) != usual != setting(epochs=2)
    assert setting("sdarts-rs") != usual
    monkeypatch.setattr(benchmark, "VERSION", benchmark.VERSION + 1)
    assert setting() != usual


def test_a_preset_that_changes_makes_runs_stale(monkeypatch):
    arguments = asked(monkeypatch)
    usual, spec = benchmark.setting("darts", arguments), benchmark.settings("darts", arguments)
    monkeypatch.setattr(benchmark, "settings", lambda *_: spec.model_copy(update={"weight_decay": 0.5}))
    assert benchmark.setting("darts", arguments) != usual


def test_all_methods_can_run_for_the_epochs_of_the_default(monkeypatch):
    """The rule of DARTS-ES needs 18 or more."""
    default = asked(monkeypatch, "--epochs=20")
    assert all(benchmark.settings(method, default) for method in benchmark.METHODS)
