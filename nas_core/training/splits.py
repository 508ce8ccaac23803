"""Which synthetic images train, which rate architectures, and which only judge the end result."""

from dataclasses import dataclass

import torch
from jaxtyping import Int64
from torch import Tensor

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


def split_images(images: int, held_out: float, validation_fraction: float, run_seed: int) -> Split:
    """A random split that depends on the seed and the sizes alone.

    Args:
        images: Size of the dataset.
        held_out: Share of all images that is held out.
        validation_fraction: Share of the others that rates architectures.
        run_seed: The run's seed.
    """
    order = torch.randperm(images, generator=generator(run_seed, "split"))
    judged = round(images * held_out)
    rating = round((images - judged) * validation_fraction)
    return Split(train=order[judged + rating :], validation=order[judged : judged + rating], held_out=order[:judged])
