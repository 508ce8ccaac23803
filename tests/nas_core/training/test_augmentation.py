"""Crops of many sizes, and squares that images lose; teacher and student see the same."""

import pytest
import torch

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


def test_brightness_of_every_image_has_a_factor_of_its_own():
    """Even grey images have neither contrast nor saturation: 100 becomes 50 to 150, uniformly."""
    grey = color_jitter(torch.full((1024, 3, 4, 4), 100, dtype=torch.uint8), 0.5, draws())
    assert torch.equal(grey, grey[:, :1, :1, :1].expand_as(grey))
    shown = grey[:, 0, 0, 0].float().sort().values
    assert float((shown - torch.linspace(50, 150, 1024)).abs().max()) < 100 * 1.63 / 32, "Kolmogorov's test at 1 %"


def test_contrast_and_saturation_have_factors_of_their_own():
    """Of grey images with steps of 40, contrast scales the steps; of even red ones, saturation the difference."""
    steps = torch.full((1024, 3, 4, 4), 80, dtype=torch.uint8)
    steps[..., 2:] = 120
    shown = color_jitter(steps, 0.5, draws()).float()
    brightness = shown.mean(dim=(1, 2, 3)) / 100
    contrast = (shown[:, 0, 0, 3] - shown[:, 0, 0, 0]) / 40 / brightness
    assert contrast.min() == pytest.approx(0.5, abs=0.05)
    assert contrast.max() == pytest.approx(1.5, abs=0.05)
    assert abs(float(torch.corrcoef(torch.stack([brightness, contrast]))[0, 1])) < 4 / 32
    red = torch.full((1024, 3, 4, 4), 80, dtype=torch.uint8)
    red[:, 0] = 110
    shown = color_jitter(red, 0.5, draws()).float()
    brightness = shown.mean(dim=(1, 2, 3)) / 90
    difference = (shown[:, 0, 0, 0] - shown[:, 1, 0, 0]) / 30 / brightness
    assert difference.min() < 0.5, "contrast takes away of it as well"
    assert difference.max() > 1.5
    assert torch.equal(color_jitter(red, 0.0, draws()), red)


def test_colours_end_where_bytes_do():
    white = color_jitter(torch.full((64, 1, 2, 2), 255, dtype=torch.uint8), 0.9, draws())
    assert white.max() == 255
    assert white.min() < 128


def test_a_scaled_crop_of_everything_is_the_image_in_another_size():
    canvas = torch.full((1, 8, 8), 7, dtype=torch.uint8)
    canvas[:, :, 4:] = 9
    # Shares of 1 leave only the whole canvas, or parts of it where no other shape fits.
    crop = scaled_crop(canvas, (4, 4), 1.0, draws())
    assert crop.shape == (1, 4, 4)
    assert set(crop.unique().tolist()) <= {7, 8, 9}


def test_scaled_crops_show_parts_of_many_sizes():
    """A canvas whose pixels count columns: the range that a crop shows is the width that it was cut with."""
    canvas = torch.arange(32, dtype=torch.uint8).expand(1, 32, 32).contiguous()
    shown = [
        int(crop.max()) - int(crop.min()) for i in range(40) for crop in [scaled_crop(canvas, (16, 16), 0.1, draws(i))]
    ]
    assert min(shown) < 16 < 24 < max(shown)


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
