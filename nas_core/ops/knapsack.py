"""The best choice under a limit on the sum of costs: a multiple-choice knapsack, exactly."""

from collections.abc import Sequence

# (cost, score, indices of the options chosen so far)
Point = tuple[int, float, tuple[int, ...]]


def best_choices(
    scores: Sequence[Sequence[float]], costs: Sequence[Sequence[int]], limit: int | None
) -> tuple[int, ...]:
    """One option per decision with the largest sum of scores whose sum of costs keeps a limit: the exact maximum.

    Solved decision by decision over the Pareto front of (cost, score): a partial choice that costs no less and scores
    no more than another can be forgotten.

    Args:
        scores: Score of each option of each decision.
        costs: Cost of each option of each decision, >= 0.
        limit: Largest sum of costs; None for no limit, where each decision's best option wins.

    Returns:
        An option's index per decision; of equals, the cheaper choice, then the one with the lower indices.

    Raises:
        ValueError: If even the cheapest options exceed the limit.
    """
    best = tuple(
        max(range(len(gains)), key=lambda option, gains=gains, prices=prices: (gains[option], -prices[option], -option))
        for gains, prices in zip(scores, costs, strict=True)
    )
    if limit is None or sum(prices[option] for prices, option in zip(costs, best, strict=True)) <= limit:
        return best
    # The cheapest completion from each decision on: a partial choice that leaves less than that cannot be completed.
    to_come = [sum(map(min, costs[decision + 1 :])) for decision in range(len(costs))]
    front: list[Point] = [(0, 0.0, ())]
    for gains, prices, rest in zip(scores, costs, to_come, strict=True):
        useful = _front([(more, gain, (i,)) for i, (gain, more) in enumerate(zip(gains, prices, strict=True))])
        front = _front(
            [
                (cost + more, score + gain, choice + option)
                for cost, score, choice in front
                for more, gain, option in useful
                if cost + more + rest <= limit
            ]
        )
    if not front:
        raise ValueError(f"no choice of options costs {limit} or less")
    return front[-1][2]


def _front(points: list[Point]) -> list[Point]:
    """The points that no other one beats in cost and score, from the cheapest to the best."""
    front: list[Point] = []
    for point in sorted(points, key=lambda point: (point[0], -point[1], point[2])):
        if not front or point[1] > front[-1][1]:
            front.append(point)
    return front
