"""Targets of synthesis: balanced one-hot classes in round 0, the teacher's soft predictions afterwards."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn.functional import one_hot as integer_one_hot

from nas_core.seeding import generator


def shard_classes(run_seed: int, shard: int, batch_size: int, num_classes: int) -> Int64[Tensor, " batch"]:
    """The class of each image of a shard in round 0.

    Images are numbered through the shards, and every run of `num_classes` consecutive numbers is one random
    permutation of all classes: classes are balanced over the run, distinct within a batch where that is possible,
    and a shard needs no other shard to know its own.

    Args:
        run_seed: The run's seed.
        shard: Number of the shard, >= 0.
        batch_size: Images per shard.
        num_classes: Number of classes.

    Source:
        Data-Free NAS, arXiv:2112.02086: batches of distinct classes from one permutation of all.
    """
    first, last = shard * batch_size, (shard + 1) * batch_size
    blocks = range(first // num_classes, (last - 1) // num_classes + 1)
    permutations = [
        torch.randperm(num_classes, generator=generator(run_seed, "synthesis.classes", block)) for block in blocks
    ]
    start = first - blocks[0] * num_classes
    return torch.cat(permutations)[start : start + batch_size]


def one_hot(classes: Int64[Tensor, " batch"], num_classes: int) -> Float[Tensor, "batch classes"]:
    """Probability one on each image's class."""
    return integer_one_hot(classes, num_classes).float()


def soft_predictions(logits: Float[Tensor, "batch classes"], temperature: float) -> Float[Tensor, "batch classes"]:
    """softmax(logits / temperature): what a round hands to the next as targets.

    Args:
        logits: The teacher's logits of the last window that the optimiser used.
        temperature: > 0; above 1 it gives related classes more mass. The paper uses 1.

    Source:
        Data-Free NAS, arXiv:2112.02086, recursive label calibration.
    """
    return (logits.float() / temperature).softmax(dim=1)
