"""Networks that were not searched for, of about the same cost: was the search worth it?

A network is described by plain values, from which it is built again: an architecture of the space, or the sizes of a
residual network.
"""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from torch import nn

from nas_core.config import Baseline
from nas_core.errors import InputError
from nas_core.ops.primitives import conv_bn
from nas_core.search_spaces import SearchSpace, rebuild_network
from nas_core.search_spaces.base import Choices
from nas_core.seeding import generator
from nas_core.strategies.budget import Budget
from nas_core.strategies.evolution import random_choices
from nas_core.teachers.networks import ResNet
from nas_core.teachers.teacher import Teacher

Widths: TypeAlias = tuple[int, int, int]
Shape: TypeAlias = tuple[int, int, int]

# Of so many random architectures the one is taken whose cost is nearest to the found one's.
DRAWN = 100
# Residual networks for small images see maps of at most this side; strided convolutions come before.
LARGEST_SIDE = 64
# The deepest hand-made network is taken whose first stage still has this many channels.
FEWEST_CHANNELS = 8


def check_baselines(baselines: Sequence[Baseline], teacher: Teacher) -> None:
    """Refuse a shrunk teacher whose network cannot be shrunk.

    Raises:
        InputError: If its widths are not known, which only those of the reference networks are.
    """
    if "teacher-shrunk" in baselines and not isinstance(teacher.module, ResNet):
        raise InputError(
            "the baseline teacher-shrunk needs a teacher of the kind `reference`, whose widths dfnas knows, and this "
            f"one is a {type(teacher.module).__name__}; leave it out of baselines"
        )


def random_architecture(space: SearchSpace, found: Choices, budget: Budget, seed: int) -> str:
    """Of many random architectures within the budget, the one whose cost is nearest to the found one's.

    Args:
        space: The space of the search.
        found: What was found; it is not its own baseline, unless nothing else was drawn.
        budget: Of the search.
        seed: The run's.

    Returns:
        The notation.
    """
    draws = generator(seed, "baseline.random")
    drawn = [random_choices(space, budget, draws) for _ in range(DRAWN)]
    others = [choices for choices in drawn if choices != found and space.is_connected(choices)] or [found]
    target = space.macs(found)
    return str(space.architecture(min(others, key=lambda choices: abs(space.macs(choices) - target))))


def handmade(input_shape: Shape, num_classes: int, macs: int) -> dict[str, Any]:
    """A residual network as people draw them, of about the given multiply-accumulates.

    Its three stages have widths of about 1 : 2 : 4, and 3, 2 or 1 blocks each: as many as leave the first stage 8
    channels. Larger images than 64 x 64 pixels are halved by strided convolutions first.

    Args:
        input_shape: (channels, height, width).
        num_classes: Number of logits.
        macs: What it should cost.

    Returns:
        Arguments of `residual_network`.
    """
    halvings = next(n for n in itertools.count() if max(input_shape[1:]) <= LARGEST_SIDE * 2**n)
    sizes: dict[str, Any] = {}
    for blocks in (3, 2, 1):
        sizes = {"blocks": blocks, "halvings": halvings}
        sizes["widths"] = list(_matched(sizes, (1, 2, 4), input_shape, num_classes, macs))
        if sizes["widths"][0] >= FEWEST_CHANNELS:
            break
    return sizes


def shrunk_teacher(teacher: Teacher, macs: int) -> dict[str, Any]:
    """The teacher's own architecture with fewer channels, of about the given multiply-accumulates.

    Args:
        teacher: See `check_baselines`.
        macs: What it should cost; at most the teacher's own.

    Returns:
        Arguments of `residual_network`.
    """
    network = teacher.module
    assert isinstance(network, ResNet)
    sizes = {"blocks": network.blocks, "halvings": 0}
    own = residual_macs(teacher.input_shape, teacher.num_classes, **sizes, widths=network.widths)
    widths = _matched(sizes, network.widths, teacher.input_shape, teacher.num_classes, min(macs, own))
    return sizes | {"widths": list(widths)}


def residual_network(
    input_shape: Shape, num_classes: int, *, blocks: int, halvings: int, widths: Sequence[int]
) -> nn.Module:
    """A residual network of three stages, after some strided convolutions.

    Args:
        input_shape: (channels, height, width).
        num_classes: Number of logits.
        blocks: Blocks per stage.
        halvings: Strided convolutions before it.
        widths: Channels of the stages, not decreasing.
    """
    first, second, third = widths
    channels = [input_shape[0], *[first] * halvings]
    stem = [conv_bn(before, after, 3, stride=2) for before, after in itertools.pairwise(channels)]
    return nn.Sequential(*stem, ResNet(blocks, (first, second, third), channels[-1], num_classes))


def build_baseline(description: Mapping[str, Any], input_shape: Shape, num_classes: int) -> nn.Module:
    """The network of a description: {"space", "architecture"}, or {"resnet": arguments of `residual_network`}."""
    if "resnet" in description:
        return residual_network(input_shape, num_classes, **description["resnet"])
    return rebuild_network(description["space"], input_shape, num_classes, description["architecture"])


def residual_macs(input_shape: Shape, num_classes: int, *, blocks: int, halvings: int, widths: Sequence[int]) -> int:
    """Multiply-accumulates of a `residual_network` for one image, without building it; the arguments are the same."""
    first, second, third = widths
    channels, *side = input_shape
    total = 0
    for _ in range(halvings):
        side = [-(-length // 2) for length in side]
        total += 9 * channels * first * math.prod(side)
        channels = first
    before = first
    total += 9 * channels * first * math.prod(side)
    for width, stride in ((first, 1), (second, 2), (third, 2)):
        side = [-(-length // stride) for length in side]
        total += 9 * (before + (2 * blocks - 1) * width) * width * math.prod(side)
        before = width
    return total + third * num_classes


def _matched(
    sizes: Mapping[str, Any], ratios: Sequence[int], input_shape: Shape, num_classes: int, macs: int
) -> Widths:
    """Widths in about the given ratios whose cost is as near to `macs` as whole channels come."""

    def cost(widths: Widths) -> int:
        return residual_macs(input_shape, num_classes, **sizes, widths=widths)

    def scaled(factor: float) -> Widths:
        first, second, third = (max(1, round(ratio * factor)) for ratio in ratios)
        return first, second, third

    below, above = 0.0, 1.0
    while cost(scaled(above)) <= macs:
        below, above = above, 2 * above
    # Until neighbouring whole numbers are told apart.
    while (above - below) * max(ratios) > 0.5:
        middle = (below + above) / 2
        below, above = (middle, above) if cost(scaled(middle)) <= macs else (below, middle)
    return _nearest(scaled(below), cost, macs)


def _nearest(widths: Widths, cost: Callable[[Widths], int], macs: int) -> Widths:
    """One channel at a time more or fewer in one stage, as long as the cost comes nearer."""
    while True:
        neighbours = [
            tuple(width + change * (stage == position) for position, width in enumerate(widths))
            for stage in range(3)
            for change in (1, -1)
        ]
        legal = [(a, b, c) for a, b, c in neighbours if 1 <= a <= b <= c]
        best = min(legal, key=lambda candidate: abs(cost(candidate) - macs))
        if abs(cost(best) - macs) >= abs(cost(widths) - macs):
            return widths
        widths = best
