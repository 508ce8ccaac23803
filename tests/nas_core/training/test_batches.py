"""Windows of the canvases: each image has its own, and is mirrored only where mirrored images keep their class."""

import collections
import dataclasses
import itertools

import pytest
import torch
from doubles import coded_canvases, halves, place_of
from torch import Tensor

from nas_core.seeding import generator
from nas_core.training.augmentation import Augmentation
from nas_core.training.batches import SyntheticBatches


def served(way: str, may_flip: bool = True, crop_scale: float | None = None) -> Tensor:
    """The bytes of 400 images of 8 x 8 in one pass over coded canvases of 10 x 10, two batches of them."""
    teacher = dataclasses.replace(halves(8), flip_invariant=may_flip)
    batches = SyntheticBatches(coded_canvases(400), teacher, 200, Augmentation(crop_scale=crop_scale))
    made = getattr(batches, way)(generator(0, "test"))
    return torch.cat([teacher.to_bytes(batch.images) for batch in made])


def right_share(mirrored: int, may_flip: bool) -> bool:
    """Of 400 fair coins the standard deviation is 10."""
    return abs(mirrored - 200) < 5 * 10 if may_flip else mirrored == 0


@pytest.mark.parametrize("may_flip", [False, True])
@pytest.mark.parametrize("way", ["epoch", "fresh"])
def test_each_image_is_a_window_of_its_own_at_a_uniform_offset(way: str, may_flip: bool):
    places = [place_of(image) for image in served(way, may_flip)]
    counts = collections.Counter((top, left) for top, left, _ in places)
    assert set(counts) == set(itertools.product(range(3), repeat=2))
    # The standard deviation of each of the nine counts is 6.3.
    assert all(abs(count - 400 / 9) < 5 * 6.3 for count in counts.values())
    assert right_share(sum(mirrored for *_, mirrored in places), may_flip)


def test_fixed_windows_are_central_and_as_they_are():
    assert {place_of(image) for image in served("fixed")} == {(1, 1, False)}


@pytest.mark.parametrize("may_flip", [False, True])
def test_scaled_crops_are_mirrored_by_fair_coins_or_never(may_flip: bool):
    """In a crop that is not mirrored pixels rise along rows and columns, as they do in the canvas."""
    images = served("epoch", may_flip, crop_scale=0.3).int()
    mirrored = images[:, 0, 0, 0] > images[:, 0, 0, -1]
    upright = torch.where(mirrored.reshape(-1, 1, 1, 1), images.flip(3), images)
    assert (upright.diff(dim=3) >= 0).all()
    assert (upright.diff(dim=2) >= 0).all()
    assert right_share(int(mirrored.sum()), may_flip)
