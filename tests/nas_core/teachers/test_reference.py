import importlib.util
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch

from nas_core.errors import InputError
from nas_core.settings.teachers import ReferenceNetwork
from nas_core.teachers import Teacher, networks, teachers

DIGITS = Path(__file__).parents[3] / "examples" / "digits"


def digits_teacher(**changes) -> Teacher:
    fields = {
        "network": "digits_resnet",
        "weights": DIGITS / "teacher.safetensors",
        "input_shape": [1, 8, 8],
        "mean": [0.3059],
        "std": [0.3758],
        "num_classes": 10,
        "flip_invariant": False,
    }
    return teachers.build(teachers.spec("reference").model_validate(fields | changes))


@pytest.fixture(scope="module")
def train_teacher():
    """The example's script, as a module."""
    spec = importlib.util.spec_from_file_location("train_teacher", DIGITS / "train_teacher.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_shipped_digits_teacher_reads_held_out_digits():
    """Its file says 500 of 500."""
    data = np.load(DIGITS / "held_out.npz")
    teacher = digits_teacher()
    predicted = teacher.logits(teacher.normalise(torch.from_numpy(data["images"]))).argmax(1).numpy()
    assert (predicted == data["labels"]).mean() >= 0.985
    assert not teacher.flip_invariant


def test_network_takes_its_classes_from_the_config():
    with pytest.raises(InputError, match=r"linear.weight \(10, 96\) instead of \(3, 96\)"):
        digits_teacher(num_classes=None, class_names=["a", "b", "c"])


@pytest.mark.parametrize("name", get_args(ReferenceNetwork))
def test_every_listed_network_exists(name):
    assert getattr(networks, name)(in_channels=2, num_classes=3).eval()(torch.zeros(2, 2, 8, 8)).shape == (2, 3)


def test_held_out_digits_are_those_that_training_leaves_out(train_teacher):
    data = np.load(DIGITS / "held_out.npz")
    images, labels = train_teacher.digits()
    assert len(images) == 1797
    assert (images[:500].numpy() == data["images"]).all()
    assert (labels[:500].numpy() == data["labels"]).all()
    assert not {image.tobytes() for image in images[500:].numpy()} & {image.tobytes() for image in data["images"]}


def test_shifts_move_by_at_most_a_pixel_and_reach_all_nine_places(train_teacher):
    dot = torch.zeros(300, 1, 8, 8, dtype=torch.uint8)
    dot[:, 0, 3, 4] = 255
    moved = train_teacher.shifted(dot, torch.Generator().manual_seed(0))
    places = {(int(row), int(column)) for _, _, row, column in moved.nonzero()}
    assert places == {(row, column) for row in (2, 3, 4) for column in (3, 4, 5)}
    assert (moved.sum((1, 2, 3)) == 255).all()
