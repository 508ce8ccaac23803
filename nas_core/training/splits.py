"""Which synthetic images train, which rate architectures, and which only judge the end result."""

from dataclasses import dataclass

import torch
from jaxtyping import Int64
from torch import Tensor

from nas_core.config import SplitSizes
from nas_core.seeding import generator


@dataclass(frozen=True)
class Split:
    """Disjoint indices into a synthetic dataset, each in random order.

    Attributes:
        train: For weights, in search and (with `validation`) in retraining.
        validation: For rating architectures.
        held_out: For the final agreement figure; neither search nor retraining sees these.
    """

    train: Int64[Tensor, " train"]
    validation: Int64[Tensor, " validation"]
    held_out: Int64[Tensor, " held_out"]


def split_images(sizes: SplitSizes, run_seed: int) -> Split:
    """A random split of as many images as the sizes add up to; it depends on them and the seed alone."""
    held_out, validation, train = torch.randperm(sum(sizes), generator=generator(run_seed, "split")).split(list(sizes))
    return Split(train, validation, held_out)
