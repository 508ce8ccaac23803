import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from nas_core.errors import InputError
from nas_core.ops.initialisation import initialise
from nas_core.seeding import generator
from nas_core.teachers.networks import digits_resnet
from nas_core.teachers.teacher import Teacher, checked

NAMES = tuple("0123456789")


def digits_teacher(module: nn.Module | None = None, mean: float = 0.3, std: float = 0.4) -> Teacher:
    if module is None:
        module = digits_resnet()
        initialise(module, generator(0, "test.teacher"))
    return Teacher(module, (1, 8, 8), (mean,), (std,), NAMES, flip_invariant=False)


ORIGINAL = digits_teacher()
TENSORS = list(ORIGINAL.module.state_dict())


@settings(max_examples=30, deadline=None)
@given(tensor=st.sampled_from(TENSORS), position=st.integers(min_value=0))
def test_fingerprint_changes_with_the_last_bit_of_any_tensor(tensor, position):
    module = copy.deepcopy(ORIGINAL.module)
    values = torch.tensor([], dtype=torch.uint8).set_(module.state_dict()[tensor].untyped_storage())
    values[(position * 4) % len(values)] ^= 1
    assert digits_teacher(module).fingerprint() != ORIGINAL.fingerprint()


def test_fingerprint_changes_with_the_preprocessing():
    fingerprints = {t.fingerprint() for t in (ORIGINAL, digits_teacher(mean=0.31), digits_teacher(std=0.41))}
    assert len(fingerprints) == 3


def test_fingerprint_is_that_of_an_equal_teacher():
    assert digits_teacher().fingerprint() == ORIGINAL.fingerprint()


@settings(deadline=None)
@given(mean=st.floats(0, 1), std=st.floats(0.01, 10))
def test_bytes_survive_normalisation(mean, std):
    every_byte = torch.arange(256, dtype=torch.uint8).reshape(4, 1, 8, 8)
    teacher = digits_teacher(ORIGINAL.module, mean, std)
    assert teacher.to_bytes(teacher.normalise(every_byte)).equal(every_byte)


def test_valid_range_is_black_and_white():
    """(0 - 0.3) / 0.4 and (1 - 0.3) / 0.4."""
    black, white = ORIGINAL.valid_range(torch.device("cpu"))
    torch.testing.assert_close(torch.cat([black, white]).flatten(), torch.tensor([-0.75, 1.75]))


def test_teacher_is_frozen_and_knows_its_batch_norms():
    assert not ORIGINAL.module.training
    assert not any(p.requires_grad for p in ORIGINAL.module.parameters())
    assert len(ORIGINAL.batch_norms) == 7
    assert ORIGINAL.batch_norms["layer3.0.bn2"].num_features == 96


def test_one_mean_per_channel_is_required():
    with pytest.raises(InputError, match="takes 3 channels, but mean has 1"):
        Teacher(digits_resnet(3), (3, 8, 8), (0.3,), (0.4,), NAMES)


@pytest.mark.parametrize(
    ("ours", "theirs", "positions"),
    [
        ("abc", "abc", [0, 1, 2]),
        ("abc", "cab", [2, 0, 1]),
        ("abc", "cxb", [0, 1, 2]),
        ("aab", "baa", [0, 1, 2]),
        ("aab", "abb", [0, 1, 2]),
    ],
)
def test_other_classes_are_found_by_name_where_all_names_are_the_same_and_tell_them_apart(ours, theirs, positions):
    teacher = Teacher(ORIGINAL.module, (1, 8, 8), (0.3,), (0.4,), tuple(ours))
    assert teacher.positions(tuple(theirs)) == positions


def test_check_returns_a_fitting_teacher():
    assert checked(ORIGINAL) is ORIGINAL


def test_check_compares_logits_with_class_count():
    teacher = Teacher(ORIGINAL.module, (1, 8, 8), (0.3,), (0.4,), NAMES[:7])
    with pytest.raises(InputError, match=r"output of shape \(2, 10\), but the config's 7 classes .* \(2, 7\)"):
        checked(teacher)


def test_check_refuses_other_outputs_than_a_tensor():
    class Features(nn.Module):
        def forward(self, x):
            return {"features": x}

    module = nn.Sequential(nn.Conv2d(1, 1, 1), Features())
    with pytest.raises(InputError, match="output of type dict"):
        checked(Teacher(module, (1, 8, 8), (0.3,), (0.4,), NAMES))


def test_check_names_an_input_the_network_cannot_take():
    with pytest.raises(InputError, match=r"cannot take images of shape \(3, 8, 8\) .*fix input_shape"):
        checked(Teacher(ORIGINAL.module, (3, 8, 8), (0.3,) * 3, (0.4,) * 3, NAMES))


class Masked(nn.Linear):
    """Wants more than images."""

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return x * mask


class Third(nn.Linear):
    """Counts on a third image."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[2]


class Misspelt(nn.Linear):
    """Looks for what it does not have."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.wieght


@pytest.mark.parametrize(
    ("kind", "error"), [(Masked, "TypeError"), (Third, "IndexError"), (Misspelt, "AttributeError")]
)
def test_a_network_that_fails_by_itself_is_a_sentence(kind: type[nn.Linear], error: str):
    with pytest.raises(InputError, match=rf"network raised {error}: .*; it is called with nothing but images of shape"):
        checked(Teacher(kind(1, 1), (1, 8, 8), (0.3,), (0.4,), NAMES))
