"""Rated architectures: plain records {"architecture", "macs", "generation", "score", ...}; a higher score is better.

Under a budget of another cost than multiply-accumulates they have that too, by its name.
"""

import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from nas_core.search_spaces.base import Choices, SearchSpace
from nas_core.strategies.budget import Budget
from nas_core.training.batches import Batch
from nas_core.training.loop import Objective

Candidate = dict[str, Any]


@torch.no_grad()
def negative_loss(forward: Callable[[Tensor], Tensor], batches: Iterable[Batch], objective: Objective) -> float:
    """The score of a network: minus its mean loss, each image counting the same.

    Args:
        forward: From images to logits.
        batches: What it is rated on.
        objective: The loss, a mean over a batch.
    """
    losses, images = [], 0
    for batch in batches:
        losses.append(objective(forward(batch.images), batch.teacher_logits) * len(batch.images))
        images += len(batch.images)
    return -float(torch.stack(losses).sum()) / images


def candidate(
    space: SearchSpace, budget: Budget, choices: Choices, figures: dict[str, Any], generation: int
) -> Candidate:
    """The record of an architecture; `figures` are its "score" and whatever else is known of it."""
    return {
        "architecture": str(space.architecture(choices)),
        **budget.record(space, choices),
        "generation": generation,
        **figures,
    }


def best(candidates: Sequence[Candidate]) -> Candidate:
    """The one with the highest score; of equals, the first."""
    return max(candidates, key=lambda candidate: candidate["score"])


def pareto_front(candidates: Sequence[Candidate], cost: str = "macs") -> list[Candidate]:
    """Those that no other beats in one of score and a cost without losing in the other.

    Returns:
        From the cheapest to the dearest, so that scores rise; of equals in both, the first.
    """
    front: list[Candidate] = []
    for point in sorted(candidates, key=lambda candidate: (candidate[cost], -candidate["score"])):
        if not front or point["score"] > front[-1]["score"]:
            front.append(point)
    return front


def search_curve(candidates: Sequence[Candidate], *, anew: bool = False) -> list[dict[str, Any]]:
    """Per generation, what it rated and the best architecture up to it.

    Args:
        candidates: In the order of rating, with the scores that they have in the end: of ranks, those among all.
        anew: Whether generations cannot be compared, as rungs of longer and longer training; then the best one is that
            of the generation alone.
    """
    curve: list[dict[str, Any]] = []
    before: list[Candidate] = []
    for generation, group in itertools.groupby(candidates, key=lambda candidate: candidate["generation"]):
        rated = list(group)
        before = rated if anew else before + rated
        scores, leader = [candidate["score"] for candidate in rated], best(before)
        curve.append(
            {
                "generation": generation,
                "rated": len(scores),
                "mean_score": sum(scores) / len(scores),
                "best_score": leader["score"],
                **{name: value for name, value in leader.items() if name not in ("score", "generation")},
            }
        )
    return curve
