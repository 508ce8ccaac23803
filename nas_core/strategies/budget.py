"""Architectures under a limit on multiply-accumulates."""

from collections.abc import Sequence

import torch
from torch import Tensor

from nas_core.errors import InputError
from nas_core.search_spaces.base import SearchSpace


def check_budget(space: SearchSpace, max_macs: int | None) -> None:
    """Refuse a limit that no architecture of a space can keep.

    Raises:
        InputError: If `max_macs` is below the cheapest architecture; the message names its cost.
    """
    cheapest, _ = space.macs_range()
    if max_macs is not None and max_macs < cheapest:
        raise InputError(
            f"max_macs = {max_macs} is below the smallest network of {space.name}, which takes {cheapest} "
            f"multiply-accumulates per image; raise it to {cheapest} or more"
        )


def expected_macs(space: SearchSpace, mixture: Sequence[Tensor]) -> Tensor:
    """Multiply-accumulates per image of an architecture drawn from a mixture, on average; gradients reach the mixture.

    Args:
        space: Gives the cost of each operation.
        mixture: Chance of each operation, one vector per slot.

    Source:
        The expected latency of ProxylessNAS, arXiv:1812.00332, eq. 6, with multiply-accumulates in its place.
    """
    fixed, table = space.cost_table()
    prices = [
        torch.tensor(costs, dtype=chances.dtype).to(chances.device)
        for costs, chances in zip(table, mixture, strict=True)
    ]
    return fixed + torch.stack([chances @ costs for chances, costs in zip(mixture, prices, strict=True)]).sum()


def reference_macs(space: SearchSpace, max_macs: int | None) -> int:
    """What expected multiply-accumulates are measured against: the budget, or the dearest architecture without one."""
    return space.macs_range()[1] if max_macs is None else max_macs


def best_choices(
    scores: Sequence[Sequence[float]], costs: Sequence[Sequence[int]], limit: int | None
) -> tuple[int, ...]:
    """One option per slot with the largest sum of scores whose sum of costs keeps a limit: the exact maximum.

    A multiple-choice knapsack, solved slot by slot over the Pareto front of (cost, score): a partial choice that
    costs no less and scores no more than another can be forgotten.

    Args:
        scores: Score of each option of each slot.
        costs: Cost of each option of each slot, >= 0.
        limit: Largest sum of costs; None for no limit, where each slot's best option wins.

    Returns:
        An option's index per slot; of equals, the cheaper choice, then the one with the lower indices.

    Raises:
        ValueError: If even the cheapest options exceed the limit.
    """
    best = tuple(
        max(range(len(gains)), key=lambda option, gains=gains, prices=prices: (gains[option], -prices[option], -option))
        for gains, prices in zip(scores, costs, strict=True)
    )
    if limit is None or sum(prices[option] for prices, option in zip(costs, best, strict=True)) <= limit:
        return best
    # The cheapest completion from each slot on: a partial choice that leaves less than that cannot be completed.
    to_come = [sum(map(min, costs[slot + 1 :])) for slot in range(len(costs))]
    front: list[tuple[int, float, tuple[int, ...]]] = [(0, 0.0, ())]
    for slot, rest in enumerate(to_come):
        extended = [
            (cost + more, score + gain, (*choice, option))
            for cost, score, choice in front
            for option, (gain, more) in enumerate(zip(scores[slot], costs[slot], strict=True))
            if cost + more + rest <= limit
        ]
        front = []
        for point in sorted(extended, key=lambda point: (point[0], -point[1], point[2])):
            if not front or point[1] > front[-1][1]:
                front.append(point)
    if not front:
        raise ValueError(f"no choice of options costs {limit} or less")
    return front[-1][2]
