"""Progressive search (P-DARTS): stages that deepen the supernet while each slot loses its weakest operations.

Source: Chen, Xie, Wu and Tian, "Progressive Differentiable Architecture Search", arXiv:1904.12760, and its code.
"""

import math
from collections.abc import Collection

from pydantic import Field

from nas_core.errors import InputError
from nas_core.registry import Spec
from nas_core.search_spaces.base import Architecture, SearchSpace
from nas_core.strategies.alpha import ArchitectureWeights, without
from nas_core.strategies.budget import Budget

SKIP = "skip_connect"
NONE = "none"

# How fast the dropout of skips fades once architecture weights learn, per epoch.
SKIP_DROPOUT_FADING = 0.2


class Stage(Spec):
    """One stage of the search: a supernet of its own, trained from new weights for all epochs."""

    extra_cells: int = Field(default=0, ge=0, description="cells more than the space has, in all")
    operations: int | None = Field(
        default=None, ge=1, description="operations that each slot has at most, the best of the stage before; none: all"
    )
    skip_dropout: float = Field(default=0.0, ge=0, lt=1, description="initial dropout of identity skips; it fades")

    def skip_dropout_at(self, epoch: int, epochs: int, alpha_start: int) -> float:
        """Dropout of identity skips in an epoch of the stage, counted from 0.

        It falls linearly while weights learn alone, up to epoch `alpha_start`; then it starts over and decays.
        """
        if epoch < alpha_start:
            return self.skip_dropout * (epochs - epoch - 1) / epochs
        return self.skip_dropout * math.exp(-SKIP_DROPOUT_FADING * (epoch - alpha_start))


class Progression(Spec):
    """Stages of the search, and what its result may not hold."""

    stages: tuple[Stage, ...] = Field(default=(Stage(),), min_length=1, description="the stages, one after the other")
    skip_cap: int | None = Field(
        default=None, ge=0, description="skip connections that the first cell of the result has at most; none: no cap"
    )
    none_allowed: bool = Field(
        default=True, description="whether the result may choose `none` where the space lets it; false: removed last"
    )

    def excluded(self, space: SearchSpace) -> set[tuple[int, str]]:
        """(slot index, operation) pairs that no result may choose; a slot of `none` alone keeps it."""
        if self.none_allowed:
            return set()
        return {(index, NONE) for index, slot in enumerate(space.slots) if set(slot.operations) > {NONE}}

    def derive(self, alpha: ArchitectureWeights, space: SearchSpace, budget: Budget) -> Architecture:
        """The best architecture with few enough skips: while there are too many, the least likely one is ruled out.

        The budget comes first: a skip without which it could not be kept stays.

        Args:
            alpha: Scores the operations.
            space: The space of `alpha`.
            budget: Which some architecture without the excluded operations keeps.
        """
        excluded = self.excluded(space)
        architecture = alpha.derive(budget, excluded)
        if self.skip_cap is None:
            return architecture
        scores = alpha.scores()
        while True:
            skips = [index for index in _first_cell(space) if architecture.operations[index] == SKIP]
            if len(skips) <= self.skip_cap:
                return architecture
            weakest_first = sorted(skips, key=lambda index: scores[index][space.slots[index].operations.index(SKIP)])
            for index in weakest_first:
                without = excluded | {(index, SKIP)}
                if keeps_budget(space, without, budget):
                    break
            else:
                return architecture
            excluded, architecture = without, alpha.derive(budget, without)

    def survivors(
        self, alpha: ArchitectureWeights, space: SearchSpace, operations: int | None, budget: Budget
    ) -> dict[int, list[str]]:
        """What each slot offers in the next stage: its best operations, and the one that would now be chosen.

        The latter makes sure that the next stage's space has an architecture within the budget.
        """
        chosen = self.derive(alpha, space, budget).operations
        kept = {}
        for index, (slot, scores) in enumerate(zip(space.slots, alpha.scores(), strict=True)):
            ranked = sorted(
                range(len(scores)), key=lambda option: (slot.operations[option] != chosen[index], -scores[option])
            )
            kept[index] = [slot.operations[option] for option in ranked[:operations]]
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
