"""The learning-rate schedule of synthesis."""

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
        The code of Data-Free NAS: (i + 1) / warmup, then (1 + cos(pi e / E)) / 2.
    """
    if step < warmup:
        return (step + 1) / warmup
    return (1 + math.cos(math.pi * (step - warmup) / (steps - warmup))) / 2
