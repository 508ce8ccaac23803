"""Splits: nothing that judges was learned from, and a run always splits alike."""

from pathlib import Path

import torch
from hypothesis import given
from hypothesis import strategies as st

from flows.config_file import read_config
from nas_core.config import SplitSizes
from nas_core.training.splits import split_images

DIGITS = Path(__file__).parents[3] / "configs" / "digits.yaml"
SIZES = st.builds(SplitSizes, st.integers(0, 50), st.integers(0, 50), st.integers(0, 50))


@given(SIZES, st.integers(0, 2**63 - 1))
def test_every_image_is_in_exactly_one_part(sizes: SplitSizes, seed: int):
    split = split_images(sizes, seed)
    assert (len(split.held_out), len(split.validation), len(split.train)) == sizes
    everything = torch.cat([split.train, split.validation, split.held_out])
    assert everything.sort().values.tolist() == list(range(sum(sizes)))


def test_the_seed_decides_which_image_is_where():
    first, again, other = (split_images(SplitSizes(10, 20, 70), seed) for seed in (1, 1, 2))
    assert torch.equal(first.train, again.train)
    assert not torch.equal(first.train, other.train)


def test_validation_is_a_share_of_what_is_not_held_out():
    settings = ["synthesis.batch_size=25", "synthesis.rounds=2", "synthesis.shards=4"]
    config = read_config(DIGITS, [*settings, "evaluation.held_out=0.1", "search.validation_fraction=0.3"])
    assert config.split == SplitSizes(held_out=20, validation=54, train=126)
