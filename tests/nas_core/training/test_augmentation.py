"""Crops of many sizes, and squares that images lose; teacher and student see the same."""

import pytest
import torch
from torchvision.transforms.v2 import functional as transforms

from nas_core.seeding import generator
from nas_core.training.augmentation import Augmentation, color_jitter, cutout, mixup, scaled_crop


def draws(position: int = 0) -> torch.Generator:
    return generator(0, "augmentation", position)


def test_cutout_takes_one_square_from_the_images_it_hits():
    """Side 4 of 8; a square around an inner pixel is whole, so that the largest loss is 16 pixels."""
    images = torch.ones(400, 3, 8, 8)
    lost = (cutout(images, 0.5, 4, draws()) == 0).sum(dim=(1, 2, 3)) / 3
    assert float(lost.max()) == 16
    assert float((lost > 0).float().mean()) == pytest.approx(0.5, abs=4 * 0.5 / 20)
    assert torch.equal(cutout(images, 0.0, 4, draws()), images)


def mixtures(chance: float) -> torch.Tensor:
    """1,024 images of which number i is white at pixel i and black elsewhere: row i is what became of it."""
    images = torch.eye(1024).reshape(1024, 1, 32, 32)
    return mixup(images, chance, draws()).flatten(1)


def test_mixup_gives_means_of_two_images_with_uniform_weights():
    mixed = mixtures(1.0)
    torch.testing.assert_close(mixed.sum(dim=1), torch.ones(1024))
    assert int((mixed > 0).sum(dim=1).max()) == 2
    own = mixed.diagonal().sort().values
    assert float((own - torch.linspace(0, 1, 1024)).abs().max()) < 1.63 / 32, "Kolmogorov's test at 1 %"
    others = mixed - torch.diag(mixed.diagonal())
    assert int((others > 0).sum(dim=0).max()) == 1, "no image is given twice"


def test_mixup_spares_images_by_chance():
    spared = float((mixtures(0.25).diagonal() == 1).float().mean())
    assert spared == pytest.approx(0.75, abs=4 * (0.25 * 0.75 / 1024) ** 0.5)
    assert torch.equal(mixtures(0.0), torch.eye(1024))


def jittered(red: int, others: int, contrast: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """1,024 images at strength 0.4: of each, the two channels' values (image, channel) in its left and right half."""
    images = torch.full((1024, 2, 4, 4), others, dtype=torch.uint8)
    images[:, 0] = red
    images[..., 2:] += contrast
    shown = color_jitter(images, 0.4, draws()).float()
    return shown[..., 0, 0], shown[..., 0, 3]


def test_even_grey_images_get_another_brightness_and_a_tint_of_their_own():
    """Strength 0.4: a channel of black is shifted by up to 4 % of 255; the channels' difference is the tint alone."""
    black, _ = jittered(0, 0)
    assert float(black.max()) == pytest.approx(10.2, abs=0.5)
    assert float((black == 0).float().mean()) == pytest.approx(0.5, abs=0.06)
    left, right = jittered(150, 150)
    assert torch.equal(left, right)
    assert float((left[:, 0] - left[:, 1]).abs().max()) == pytest.approx(20.4, abs=2)
    mean = left.mean(dim=1)
    assert 150 * 0.8 - 10.7 <= float(mean.min()) < 150 * 0.84
    assert 150 * 1.16 < float(mean.max()) <= 150 * 1.2 + 10.7


def test_contrast_scales_the_difference_of_an_images_halves():
    """By 0.8 to 1.2 times the brightness's 0.8 to 1.2, which the tint leaves alone."""
    left, right = jittered(100, 100, contrast=40)
    factors = (right - left)[:, 0] / 40
    assert float(factors.min()) < 0.75
    assert float(factors.max()) > 1.3
    assert 0.62 < float(factors.min()) < float(factors.max()) < 1.46
    assert float(factors.mean()) == pytest.approx(1, abs=0.02)


def test_saturation_scales_the_difference_of_the_channels():
    """By 0.6 to 1.4, beside brightness, contrast and tint: on average not at all, and for each image by its own."""
    left, _ = jittered(160, 80)
    differences = left[:, 0] - left[:, 1]
    assert float(differences.mean()) == pytest.approx(80, abs=3)
    # Variances of the three factors and, in units of the difference, of two tints.
    variance = (1 + 0.4**2 / 3) * (1 + 0.2**2 / 3) ** 2 - 1 + 2 * (10.2 / 80) ** 2 / 3
    assert float((differences / 80).var()) == pytest.approx(variance, rel=0.15)


def test_no_strength_changes_nothing_and_bytes_stay_bytes():
    images = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16).expand(8, 3, 16, 16)
    assert torch.equal(color_jitter(images, 0.0, draws()), images)
    white = color_jitter(torch.full((64, 1, 2, 2), 255, dtype=torch.uint8), 1.0, draws())
    assert white.max() == 255
    assert white.min() < 160


@pytest.mark.parametrize("width", [8, 32])
def test_a_scaled_crop_of_everything_is_the_image_in_another_size(width: int):
    """No other part of a square has its area; a canvas that is too wide for any shape is taken whole."""
    canvas = torch.randint(256, (3, 8, width), generator=draws(), dtype=torch.uint8)
    whole = transforms.resize(canvas, [4, 4], antialias=True)
    assert all(torch.equal(scaled_crop(canvas, (4, 4), 1.0, draws(position)), whole) for position in range(10))


def test_scaled_crops_show_parts_of_many_sizes():
    """A canvas whose pixels count columns: the range that a crop shows is the width that it was cut with."""
    canvas = torch.arange(32, dtype=torch.uint8).expand(1, 32, 32).contiguous()
    shown = [
        int(crop.max()) - int(crop.min()) for i in range(40) for crop in [scaled_crop(canvas, (16, 16), 0.1, draws(i))]
    ]
    assert min(shown) < 16 < 24 < max(shown)


def test_crops_for_wide_images_are_wide_and_of_all_sizes(monkeypatch: pytest.MonkeyPatch):
    """Cut from 32 x 128 for 28 x 112, whose shape a crop keeps up to a factor of 4/3."""
    parts: list[tuple[int, int]] = []

    def cut(image, _top, _left, height, width, size, **_):
        parts.append((height, width))
        return image[:, : size[0], : size[1]]

    monkeypatch.setattr(transforms, "resized_crop", cut)
    canvas = torch.zeros(1, 32, 128, dtype=torch.uint8)
    for position in range(400):
        scaled_crop(canvas, (28, 112), 0.5, draws(position))
    shares = [height * width / (32 * 128) for height, width in parts]
    assert len(set(parts)) > 100
    assert 0.48 < min(shares) < 0.52
    assert max(shares) > 0.95
    assert all(sum(low <= share < low + 0.1 for share in shares) > 20 for low in (0.5, 0.6, 0.7, 0.8))
    assert all(0.95 * 3 / 4 < width / height / 4 < 1.05 * 4 / 3 for height, width in parts)


def test_teacher_and_student_see_the_same_augmented_images(make_batches):
    batches = make_batches(16, 8)
    batches.augmentation = Augmentation(crop_scale=0.3, cutout=4, mixup=1.0, color_jitter=0.5)
    batch = next(batches.epoch(draws()))
    assert batch.images.shape == (8, 3, 8, 8)
    assert ((batch.images == 0).sum(dim=(1, 2, 3)) >= 3 * 2 * 2).all(), "at least a quarter of a square in a corner"
    torch.testing.assert_close(batch.teacher_logits, batches.teacher.logits(batch.images))


def test_images_that_judge_are_not_augmented(make_batches):
    plain, augmented = make_batches(8, 8), make_batches(8, 8)
    augmented.augmentation = Augmentation(crop_scale=0.3, cutout=4, mixup=1.0, color_jitter=0.5)
    assert torch.equal(next(plain.fixed()).images, next(augmented.fixed()).images)
    assert torch.equal(next(plain.fresh(draws())).images, next(augmented.fresh(draws())).images)
