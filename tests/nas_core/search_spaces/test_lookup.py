"""Accuracy tables: read, asked, and refused."""

import csv

import pytest

from nas_core.errors import InputError
from nas_core.search_spaces.lookup import AccuracyTable
from nas_core.search_spaces.nasbench1shot1 import NasBench1Shot1
from nas_core.search_spaces.nasbench201 import NasBench201

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
