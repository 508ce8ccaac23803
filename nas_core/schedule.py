"""The learning-rate schedule of everything that is optimised here: a linear warm-up, then half a cosine."""

import math


def warmup_cosine(step: int, steps: int, warmup: int) -> float:
    """Factor on the learning rate: linear from 1/warmup to 1, then half a cosine from 1 towards 0.

    Args:
        step: Step to come, in [0, steps).
        steps: All steps.
        warmup: Steps of linear warm-up, < steps.

    Returns:
        A number in (0, 1].

    Source:
        Cosine: Loshchilov and Hutter, arXiv:1608.03983, eq. 5. With this warm-up: the code of Data-Free NAS.
    """
    if step < warmup:
        return (step + 1) / warmup
    return (1 + math.cos(math.pi * (step - warmup) / (steps - warmup))) / 2
