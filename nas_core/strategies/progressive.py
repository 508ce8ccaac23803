"""Progressive search (P-DARTS): stages that deepen the supernet while each slot loses its weakest operations.

Source: Chen, Xie, Wu and Tian, "Progressive Differentiable Architecture Search", arXiv:1904.12760, and its code.
"""

from collections.abc import Collection

from nas_core.errors import InputError
from nas_core.search_spaces.base import Architecture, SearchSpace
from nas_core.settings.differentiable import Progression
from nas_core.strategies.alpha import ArchitectureWeights, without
from nas_core.strategies.budget import Budget

SKIP = "skip_connect"
NONE = "none"


def excluded(progression: Progression, space: SearchSpace) -> set[tuple[int, str]]:
    """(slot index, operation) pairs that no result may choose; a slot of `none` alone keeps it."""
    if progression.none_allowed:
        return set()
    return {(index, NONE) for index, slot in enumerate(space.slots) if set(slot.operations) > {NONE}}


def derive(progression: Progression, alpha: ArchitectureWeights, space: SearchSpace, budget: Budget) -> Architecture:
    """The best architecture with few enough skips: while there are too many, the least likely one is ruled out.

    The budget comes first: a skip without which it could not be kept stays.

    Args:
        progression: Its limits of the result.
        alpha: Scores the operations.
        space: The space of `alpha`.
        budget: Which some architecture without the excluded operations keeps.
    """
    ruled_out = excluded(progression, space)
    architecture = alpha.derive(budget, ruled_out)
    if progression.skip_cap is None:
        return architecture
    scores = alpha.scores()
    while True:
        skips = [index for index in _first_cell(space) if architecture.operations[index] == SKIP]
        if len(skips) <= progression.skip_cap:
            return architecture
        weakest_first = sorted(skips, key=lambda index: scores[index][space.slots[index].operations.index(SKIP)])
        for index in weakest_first:
            more = ruled_out | {(index, SKIP)}
            if keeps_budget(space, more, budget):
                break
        else:
            return architecture
        ruled_out, architecture = more, alpha.derive(budget, more)


def survivors(
    progression: Progression,
    alpha: ArchitectureWeights,
    space: SearchSpace,
    operations: int | None,
    budget: Budget,
) -> dict[int, list[str]]:
    """What each slot offers in the next stage: what would now be chosen, and the best of the other operations.

    The former makes sure that the next stage's space has an architecture within the budget; where a slot takes more
    than `operations`, it keeps all that it takes.
    """
    derived = derive(progression, alpha, space, budget).operations
    kept = {}
    for index, (slot, chosen, scores) in enumerate(zip(space.slots, derived, alpha.scores(), strict=True)):
        taken = chosen if isinstance(chosen, tuple) else (chosen,)
        ranked = sorted(range(len(scores)), key=lambda option: (slot.operations[option] not in taken, -scores[option]))
        number = None if operations is None else max(operations, len(taken))
        kept[index] = [slot.operations[option] for option in ranked[:number]]
    return kept


def keeps_budget(space: SearchSpace, excluded: Collection[tuple[int, str]], budget: Budget) -> bool:
    """Whether architectures are left, and the cheapest of them keeps the budget."""
    try:
        left = without(space, excluded)
    except InputError:
        return False
    return budget.can_be_kept(left)


def _first_cell(space: SearchSpace) -> list[int]:
    """Slots of the cell that the first slot belongs to, which is the normal cell where there are two."""

    def cell(index: int) -> str | None:
        group = space.slots[index].group
        return None if group is None else group.split("/")[0]

    return [index for index in range(len(space.slots)) if cell(index) == cell(0)]
