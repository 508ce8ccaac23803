"""Accuracy tables: read, asked, and refused."""

import csv
import pickle
import re
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from doubles import Bomb

from nas_core.errors import InputError
from nas_core.search_spaces.lookup import AccuracyTable
from nas_core.search_spaces.nasbench1shot1 import NasBench1Shot1
from nas_core.search_spaces.nasbench201 import NasBench201
from nas_core.seeding import generator

SKIPS = "|skip_connect~0|+|skip_connect~0|skip_connect~1|+|skip_connect~0|skip_connect~1|skip_connect~2|"


@pytest.fixture
def write(tmp_path):
    def write_(text: str):
        path = tmp_path / "table.csv"
        path.write_text(text)
        return path

    return write_


@pytest.fixture(scope="module")
def space() -> NasBench201:
    return NasBench201(2, 1, input_shape=(3, 8, 8), num_classes=2)


def test_an_architecture_finds_its_accuracy(write, space):
    """All skips reach 54.30 % on CIFAR-10."""
    table = AccuracyTable.read(write(f"arch,cifar10,cifar100\n{SKIPS},54.30,15.61\n"), "cifar100")
    assert table.of(space.parse(SKIPS)) == 15.61


def test_nasbench1shot1_has_tables_too(tmp_path):
    """Its notation holds commas, which CSV writers quote."""
    space = NasBench1Shot1("s1", 2, 2, 1, input_shape=(3, 8, 8), num_classes=2)
    cell = "conv3x3-bn-relu(input)|maxpool3x3(input,1)|conv1x1-bn-relu(1,2)|conv3x3-bn-relu(input,3)|output(2,4)"
    path = tmp_path / "table.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([["arch", "test"], [cell, 93.5]])
    table = AccuracyTable.read(path, "test")
    table.check_covers(space)
    assert table.of(space.parse(cell)) == 93.5


def test_the_documented_code_writes_a_table_of_every_cell_of_nasbench1shot1(tmp_path, monkeypatch):
    """With an accuracy that tells from the question to NAS-Bench-101 how many 3x3 convolutions a cell has."""
    page = Path(__file__).parents[3] / "docs" / "strategies.md"
    (code,) = re.findall(r"```python\n(.*?NasBench1Shot1.*?)```", page.read_text(), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(code, {"accuracy": lambda _, operations: 90.0 + operations.count("conv3x3-bn-relu")})
    table = AccuracyTable.read("1shot1-s1.csv", "test")
    space = NasBench1Shot1("s1", 2, 2, 1, input_shape=(3, 8, 8), num_classes=2)
    assert len(table.accuracies) == space.size
    for position in range(10):
        cell = space.architecture(space.sample(generator(0, "cell", position)))
        assert table.of(cell) == 90.0 + cell.operations.count("conv3x3-bn-relu")


def test_anytime_accuracy_follows_the_course_of_a_search(write):
    """What the table does not hold is left out."""
    table = AccuracyTable.read(write(f"arch,top1\n{SKIPS},54.30\n"), "top1")
    other = SKIPS.replace("skip_connect~2", "none~2")
    curve = [{"epoch": 0, "architecture": other, "loss": 1.0}, {"epoch": 1, "architecture": SKIPS}]
    assert table.along(curve) == [{"epoch": 1, "true_accuracy": 54.3}]


def test_a_table_of_another_space_is_refused_with_an_example(write, space):
    AccuracyTable.read(write(f"arch,top1\n?,1\n{SKIPS},54.30\n"), "top1").check_covers(space)
    with pytest.raises(InputError, match=r"holds no architecture of nasbench201, which writes them like '\|"):
        AccuracyTable.read(write("arch,top1\n2,1\n"), "top1").check_covers(space)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no column 'arch'; it has none"),
        ("arch,other\na,1\n", "no column 'top1'; it has arch, other"),
        ("arch,top1\na,high\n", "line 2: 'high'"),
        ("arch,top1\na,nan\n", "line 2: 'nan'"),
        ("arch,top1\na\n", "line 2"),
        ("arch,top1\na,1\na,2\n", "line 3: a has two different"),
    ],
)
def test_a_wrong_table_is_refused(write, text, message):
    with pytest.raises(InputError, match=message):
        AccuracyTable.read(write(text), "top1")


def test_a_missing_file_or_architecture_is_named(write, tmp_path, space):
    with pytest.raises(InputError, match="cannot be read"):
        AccuracyTable.read(tmp_path / "none.csv", "top1")
    with pytest.raises(InputError, match="does not hold"):
        AccuracyTable.read(write("arch,top1\n"), "top1").of(space.parse(SKIPS))


# --- NAS-Bench-201's own file ---

CONVOLUTIONS = SKIPS.replace("skip_connect", "nor_conv_3x3")


def run(dataset: str, seed: int, epochs: int, accuracies: dict[str, float]) -> dict[str, Any]:
    """What the benchmark's file holds of one training: here of its last two epochs, and fewer figures."""
    final = {f"{images}@{epochs - 1}": value for images, value in accuracies.items()}
    early = {f"{images}@{epochs - 2}": 10.0 for images in accuracies}
    return {
        "name": dataset,
        "net_state_dict": None,
        "train_acc1es": {epochs - 1: 99.9},
        "train_times": OrderedDict({epochs - 1: 9.5}),
        "arch_config": {"channel": 16, "num_cells": 5, "arch_str": SKIPS, "class_num": 10},
        "params": np.float64(0.073306),
        "flop": np.float64(7.783),
        "seed": seed,
        "epochs": epochs,
        "latency": [0.014],
        "eval_names": list(accuracies),
        "eval_acc1es": early | final,
        "eval_losses": dict.fromkeys(final, 0.5),
        "eval_times": dict.fromkeys(final, 0.7),
    }


# By training set, what the file holds of a run; the names of its evaluations are the benchmark's.
TRAINED = {
    "cifar10-valid": {"x-valid": 11.0, "ori-test": 12.0},
    "cifar100": {"x-valid": 21.0, "x-test": 22.0, "ori-test": 23.0},
    "ImageNet16-120": {"x-valid": 31.0, "x-test": 32.0, "ori-test": 33.0},
}


def api_file(path: Path, trained: dict[str, dict[str, float]] = TRAINED) -> Path:
    """A file of two architectures, in the format that torch wrote in 2020 and with NumPy's names of then.

    Of the six published columns, those that `TRAINED` has; accuracies of the second architecture are one higher.
    """

    def infos(index: int, notation: str, epochs: int, *tests: float) -> dict[str, Any]:
        seeds = (777, 888)[: len(tests)]
        results = {
            ("cifar10", seed): run("cifar10", seed, epochs, {"ori-test": test})
            for seed, test in zip(seeds, tests, strict=True)
        }
        for dataset, accuracies in trained.items():
            of_this = {images: index + accuracy for images, accuracy in accuracies.items()}
            results[dataset, 777] = run(dataset, 777, epochs, of_this)
        return {
            "arch_index": index,
            "arch_str": notation,
            "all_results": results,
            "dataset_seed": {"cifar10": [*seeds]},
        }

    content = {
        "meta_archs": [SKIPS, CONVOLUTIONS],
        "total_archs": 2,
        "basestr": "C16-N5",
        "arch2infos": {
            0: {"full": infos(0, SKIPS, 200, 54.0, 54.6), "less": infos(0, SKIPS, 12, 40.0)},
            1: {"full": infos(1, CONVOLUTIONS, 200, 93.76), "less": infos(1, CONVOLUTIONS, 12, 85.0)},
        },
        "evaluated_indexes": {0, 1},
    }
    torch.save(content, path, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes().replace(b"numpy._core.", b"numpy.core."))
    return path


def test_the_api_file_gives_the_mean_of_the_full_trainings(tmp_path, space):
    path = api_file(tmp_path / "NAS-Bench-201-v1_1-096897.pth")
    assert b"cnumpy.core.multiarray\nscalar" in path.read_bytes()
    table = AccuracyTable.read(path, "cifar10-test")
    table.check_covers(space)
    assert table.of(space.parse(SKIPS)) == pytest.approx(54.3)
    assert table.of(space.parse(CONVOLUTIONS)) == 93.76


@pytest.mark.parametrize(
    ("column", "accuracy"),
    [
        ("cifar10-valid", 11.0),
        ("cifar100-valid", 21.0),
        ("cifar100-test", 22.0),
        ("ImageNet16-120-valid", 31.0),
        ("ImageNet16-120-test", 32.0),
    ],
)
def test_every_other_published_column_is_read(tmp_path, column: str, accuracy: float):
    table = AccuracyTable.read(api_file(tmp_path / "api.pth"), column)
    assert table.accuracies == {SKIPS: accuracy, CONVOLUTIONS: accuracy + 1}


def test_the_api_file_is_written_as_csv(tmp_path):
    table = AccuracyTable.read(api_file(tmp_path / "api.pth"), "cifar10-test")
    table.write(tmp_path / "table.csv", "cifar10-test")
    assert AccuracyTable.read(tmp_path / "table.csv", "cifar10-test").accuracies == table.accuracies


@pytest.mark.parametrize("form", ["torch", "pickle"])
def test_an_api_file_with_code_is_refused_and_the_code_is_not_run(tmp_path, form):
    path = tmp_path / "api.pth"
    content = {"meta_archs": [SKIPS], "arch2infos": {0: Bomb(tmp_path / "ran")}}
    torch.save(content, path) if form == "torch" else path.write_bytes(pickle.dumps(content, protocol=2))
    with pytest.raises(InputError, match="without running what is in it"):
        AccuracyTable.read(path, "cifar10-test")
    assert not (tmp_path / "ran").exists()


def test_other_files_and_columns_are_refused(tmp_path):
    path = tmp_path / "other.pth"
    with pytest.raises(InputError, match="No such file"):
        AccuracyTable.read(path, "cifar10-test")
    torch.save({"weight": torch.ones(2)}, path)
    with pytest.raises(InputError, match=r"is not NAS-Bench-201's file.*arch2infos"):
        AccuracyTable.read(path, "cifar10-test")
    with pytest.raises(InputError, match="no column 'cifar10'; it has cifar10-valid, cifar10-test"):
        AccuracyTable.read(path, "cifar10")
    with pytest.raises(InputError, match="is not NAS-Bench-201's file"):
        AccuracyTable.read(api_file(path, trained={}), "ImageNet16-120-test")
