"""Measures of synthetic images against hand-computed values, and against what is done to the images."""

import math

import pytest
import torch
from torch import Tensor, nn

from nas_core.errors import InputError
from nas_core.evaluation.dataset_quality import (
    check_verifier,
    class_affinity,
    clipped_pixels,
    dataset_quality,
    near_duplicates,
    off_diagonal_mass,
    relative_distance,
    spearman,
    top_pairs,
    within_class_distance,
)
from nas_core.seeding import generator
from nas_core.teachers.teacher import Teacher


class Brightness(nn.Module):
    """Two classes, dark and bright: logits -b and b of the mean normalised pixel b, after a BatchNorm layer."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(1, eps=0)
        self.linear = nn.Linear(1, 2, bias=False)
        self.linear.weight.data = torch.tensor([[-1.0], [1.0]])

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.norm(x).mean((2, 3)))


def brightness() -> Teacher:
    """Its layer remembers mean 0 and variance 1 of pixels normalised from [0, 1] to [-1, 1]."""
    return Teacher(Brightness(), (1, 4, 4), (0.5,), (0.5,), ("dark", "bright"))


def black_and_white() -> Tensor:
    return torch.tensor([0, 255, 0, 255], dtype=torch.uint8).reshape(4, 1, 1, 1).expand(4, 1, 5, 5).contiguous()


def test_quality_of_black_and_white_images():
    """The teacher is wrong about the last image; every byte is clipped; the set has mean 0 and variance 1."""
    targets = torch.tensor([[0.9, 0.1], [0.1, 0.9], [0.8, 0.2], [1.0, 0.0]])
    quality = dataset_quality(black_and_white(), targets, brightness(), generator(0, "test"), batch_size=3)
    confidence = 1 / (1 + math.exp(-2))
    assert quality.images == 4
    assert quality.teacher_top1 == 0.75
    assert quality.rarest_class == pytest.approx(2 / 3)  # three were asked to be dark, two are
    assert quality.verifier_top1 is None
    assert quality.confidence == pytest.approx(confidence)
    expected = -confidence * math.log(confidence) - (1 - confidence) * math.log(1 - confidence)
    assert quality.entropy == pytest.approx(expected, rel=1e-5)
    assert quality.top5_overlap == 1.0
    assert quality.rank_correlation == 1.0
    assert quality.batch_norm_distances == {"norm": pytest.approx(0, abs=1e-6)}
    # Features are -1, 1, -1, 1: two dark images are alike, and so is the bright one with the last dark one's.
    assert quality.within_class_distance == pytest.approx(4 / 3)
    assert quality.near_duplicates == 1.0
    assert quality.clipped_pixels == 1.0
    assert quality.figures()["batch_norm_distance_largest"] == pytest.approx(0, abs=1e-6)


def test_a_verifier_of_another_input_size_sees_the_same_windows():
    """One that calls everything bright agrees with one target of four; one like the teacher, with what it sees."""
    targets = torch.tensor([[0.9, 0.1], [0.1, 0.9], [0.8, 0.2], [1.0, 0.0]])
    network = Brightness()
    network.linear = nn.Linear(1, 2)
    network.linear.bias.data = torch.tensor([0.0, 100.0])
    biased = Teacher(network, (1, 7, 3), (0.1,), (0.9,), ("dark", "bright"))
    for verifier, top1 in ((biased, 0.25), (brightness(), 0.75)):
        quality = dataset_quality(black_and_white(), targets, brightness(), generator(0, "test"), verifier=verifier)
        assert quality.verifier_top1 == top1


def test_a_verifiers_classes_are_told_by_their_names():
    """One whose first logit is the bright class sees what the teacher sees; of other names, the order counts."""
    targets = torch.tensor([[0.9, 0.1], [0.1, 0.9], [0.8, 0.2], [1.0, 0.0]])
    network = Brightness()
    network.linear.weight.data *= -1
    for names, top1 in ((("bright", "dark"), 0.75), (("0", "1"), 0.25)):
        verifier = Teacher(network, (1, 4, 4), (0.5,), (0.5,), names)
        quality = dataset_quality(black_and_white(), targets, brightness(), generator(0, "test"), verifier=verifier)
        assert quality.verifier_top1 == top1


@pytest.mark.parametrize(("shape", "classes"), [((3, 4, 4), 2), ((1, 4, 4), 3)])
def test_a_verifier_of_other_classes_or_channels_is_refused(shape, classes):
    other = Teacher(Brightness(), shape, (0.5,) * shape[0], (0.5,) * shape[0], tuple("abc"[:classes]))
    with pytest.raises(InputError, match="name a classifier of the same classes"):
        check_verifier(other, brightness())


def test_the_whole_set_is_compared_with_the_statistics_not_its_batches():
    """Batches of one colour each are far from the layer's statistics; the set is not."""
    images, targets = black_and_white()[[0, 2, 1, 3]], torch.eye(2)[[0, 0, 1, 1]]
    quality = dataset_quality(images, targets, brightness(), generator(0, "test"), batch_size=2)
    assert quality.batch_norm_distances["norm"] == pytest.approx(0, abs=1e-6)
    assert quality.rank_correlation is None
    assert quality.top5_overlap is None


def test_a_teacher_without_batch_norm_or_linear_layer_is_judged_too():
    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(()))

        def forward(self, x: Tensor) -> Tensor:
            mean = x.mean((1, 2, 3)) * self.scale
            return torch.stack([-mean, mean], dim=1)

    teacher = Teacher(Plain(), (1, 4, 4), (0.5,), (0.5,), ("dark", "bright"))
    quality = dataset_quality(black_and_white(), torch.eye(2)[[0, 1, 0, 1]], teacher, generator(0, "test"))
    assert quality.teacher_top1 == 1
    assert quality.batch_norm_distances == {}
    assert quality.figures()["batch_norm_distance"] is None
    assert quality.within_class_distance == pytest.approx(0, abs=1e-6)


def test_judging_leaves_no_hook_behind():
    teacher = brightness()
    dataset_quality(black_and_white(), torch.eye(2)[[0, 1, 0, 1]], teacher, generator(0, "test"))
    assert not any(module._forward_pre_hooks for module in teacher.module.modules())


def test_spearman_matches_hand_computed_value():
    """Ranks 0 1 2 3 against 0 2 1 3: 1 - 6 * 2 / (4 * 15); equal and opposite orders give 1 and -1."""
    one = torch.tensor([[1.0, 2.0, 3.0, 4.0]] * 3)
    other = torch.tensor([[1.0, 3.0, 2.0, 4.0], [10.0, 20.0, 30.0, 40.0], [4.0, 3.0, 2.0, 1.0]])
    torch.testing.assert_close(spearman(one, other), torch.tensor([0.8, 1.0, -1.0]))


def test_relative_distance_matches_hand_computed_value():
    """Means 2 and 5 are 3 apart, variances 5 and 9 are 4 apart; what is stored has norms 5 and 9."""
    one, four, five, nine = (torch.tensor([v]) for v in (1.0, 4.0, 5.0, 9.0))
    assert relative_distance(torch.tensor([2.0]), five, five, nine) == pytest.approx(7 / 14)
    assert relative_distance(one, four, one, four) == 0


def test_within_class_distance_matches_hand_computed_value():
    """Class 0 has features at right angles (distance 1), class 1 equal ones (0), class 2 a single image."""
    features = torch.tensor([[1.0, 0.0], [0.0, 2.0], [1.0, 1.0], [3.0, 3.0], [1.0, 0.0]])
    classes = torch.tensor([0, 0, 1, 1, 2])
    assert within_class_distance(features, classes) == pytest.approx(0.5)
    assert within_class_distance(features, torch.arange(5)) is None


def test_near_duplicates_are_counted_by_image():
    """Features at 0, 1 and 90 degrees: 1 - cos(1 degree) is 1.5e-4."""
    angles = torch.tensor([0.0, 1.0, 90.0]).deg2rad()
    features = torch.stack([angles.cos(), angles.sin()], dim=1)
    assert near_duplicates(features, 1e-3) == pytest.approx(2 / 3)
    assert near_duplicates(features, 1e-4) == 0


def test_clipped_pixels_are_black_or_white_bytes():
    image = torch.tensor([0, 1, 254, 255], dtype=torch.uint8).reshape(1, 1, 2, 2)
    assert clipped_pixels(image) == 0.5


def test_affinity_says_which_classes_the_labels_join():
    """Class 0 leaks 0.2 and 0.4 to class 1; class 1 leaks 0.1 to class 2; class 2 was never asked for."""
    targets = torch.eye(3)[[0, 0, 1]]
    labels = torch.tensor([[0.8, 0.2, 0.0], [0.6, 0.4, 0.0], [0.0, 0.9, 0.1]])
    affinity = class_affinity(targets, labels)
    torch.testing.assert_close(affinity[:2], torch.tensor([[0.7, 0.3, 0.0], [0.0, 0.9, 0.1]]))
    assert affinity[2].isnan().all()
    assert off_diagonal_mass(affinity) == pytest.approx(0.2)
    pairs = top_pairs(affinity, ("cat", "dog", "cow"))
    assert [(one, other) for one, other, _ in pairs] == [("cat", "dog"), ("dog", "cow")]
    assert [share for *_, share in pairs] == pytest.approx([0.3, 0.1])
