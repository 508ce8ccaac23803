"""Architecture weights (alpha): trainable logits, the gates that they make, and the architecture that they mean."""

from collections.abc import Collection, Sequence
from typing import Any

import torch
from torch import Tensor

from nas_core.errors import InputError
from nas_core.ops.mixed import Gate, WeightedEdge
from nas_core.search_spaces.base import Architecture, SearchSpace
from nas_core.settings.differentiable import Relaxation
from nas_core.strategies.budget import Budget


class ArchitectureWeights:
    """One trainable logit (alpha) per operation of each slot; no part of the supernet, whose optimiser never sees it.

    Args:
        space: Gives the slots.
        generator: Draws the initial values, 1e-3 N(0, 1) around `start`.
        device: Where the supernet is.
        relaxation: "softmax" mixes all operations. "one-hot" mixes none: the largest logit's operation has weight 1,
            the gradient of each weight moves its logit as it is, and logits stay in [0, 1], around 0.5 at first.
        edge_normalisation: Whether each edge has a weight of its own (beta), a softmax over the edges of its group.

    Attributes:
        logits: Alpha, one vector per slot.
        edge_logits: Beta before the softmax, one per slot; None without edge normalisation.

    Raises:
        InputError: If edges are to be normalised and the space does not say which edges enter the same node.

    Source:
        DARTS, arXiv:1806.09055; edge normalisation: PC-DARTS, arXiv:1907.05737, section 3.3; one-hot: NASP,
        arXiv:1905.13577, algorithm 2.
    """

    def __init__(
        self,
        space: SearchSpace,
        generator: torch.Generator,
        device: torch.device,
        relaxation: Relaxation = "softmax",
        edge_normalisation: bool = False,
    ) -> None:
        self._space, self.relaxation = space, relaxation
        centre = 0.5 if relaxation == "one-hot" else 0.0
        self.logits = [
            (centre + 1e-3 * torch.randn(len(slot.operations), generator=generator)).to(device).requires_grad_()
            for slot in space.slots
        ]
        self.edge_logits: Tensor | None = None
        if edge_normalisation:
            self._groups = edge_groups(space, "edge normalisation")
            initial = 1e-3 * torch.randn(len(space.slots), generator=generator)
            self.edge_logits = initial.to(device).requires_grad_()

    def parameters(self) -> list[Tensor]:
        """All that learns."""
        return [*self.logits] if self.edge_logits is None else [*self.logits, self.edge_logits]

    def mixture(self) -> list[Tensor]:
        """Weights of each slot's operations, which sum to one, with a graph to the logits."""
        if self.relaxation == "softmax":
            return [logits.softmax(dim=0) for logits in self.logits]
        # The value is the one-hot's, the gradient the logits'.
        return [_one_hot(logits) + (logits - logits.detach()) for logits in self.logits]

    def gates(self, mixture: Sequence[Tensor] | None = None) -> list[Gate]:
        """The gates of a mixture, by default the present one: with the weights of edges if there are any."""
        mixture = self.mixture() if mixture is None else mixture
        if self.edge_logits is None:
            return list(mixture)
        return [WeightedEdge(beta, weights) for beta, weights in zip(self.edge_weights(), mixture, strict=True)]

    def edge_weights(self) -> list[Tensor]:
        """Beta: one weight per slot; those of the edges that enter one node sum to one."""
        assert self.edge_logits is not None
        normalised = {
            slot: weight
            for group in self._groups
            for slot, weight in zip(group, self.edge_logits[group].softmax(dim=0), strict=True)
        }
        return [normalised[slot] for slot in range(len(self.logits))]

    @torch.no_grad()
    def project(self) -> None:
        """Bring logits back to where their relaxation wants them, after a step."""
        if self.relaxation == "one-hot":
            for logits in self.logits:
                logits.clamp_(0, 1)

    def scores(self) -> list[list[float]]:
        """What is summed over slots to rank architectures: log softmax(alpha), plus log beta of the edge."""
        rows = [logits.detach().log_softmax(dim=0) for logits in self.logits]
        if self.edge_logits is not None:
            betas = self.edge_weights()
            rows = [row + beta.detach().log() for row, beta in zip(rows, betas, strict=True)]
        return [row.tolist() for row in rows]

    def derive(self, budget: Budget, excluded: Collection[tuple[int, str]] = ()) -> Architecture:
        """The architecture with the largest product of gates within the budget, in which only what is chosen counts.

        Without a limit that is the argmax per slot of NAS-Bench-201, `none` included where the output still depends on
        the input, and the two strongest edges per node of DARTS.

        Args:
            budget: What the architecture may cost.
            excluded: (slot index, operation) pairs that may not be chosen.

        Raises:
            InputError: If nothing is left to choose.
            ValueError: If what is left exceeds the budget whatever is chosen.
        """
        space, scores = self._space, self.scores()
        left = without(space, excluded)
        scores = [
            [score for score, operation in zip(row, slot.operations, strict=True) if operation in kept.operations]
            for row, slot, kept in zip(scores, space.slots, left.slots, strict=True)
        ]
        return left.architecture(left.best(scores, budget.limit, budget.table(left)))

    def state(self) -> dict[str, Any]:
        """All that learns, as plain values and tensors."""
        return {"parameters": [parameter.detach() for parameter in self.parameters()]}

    @torch.no_grad()
    def load(self, state: dict[str, Any]) -> None:
        """Take up a `state`."""
        for parameter, saved in zip(self.parameters(), state["parameters"], strict=True):
            parameter.copy_(saved)


def without(space: SearchSpace, excluded: Collection[tuple[int, str]]) -> SearchSpace:
    """The space without some (slot index, operation) pairs.

    Raises:
        InputError: If nothing is left to choose somewhere.
    """
    slots = {index for index, _ in excluded}
    kept = {
        index: [operation for operation in space.slots[index].operations if (index, operation) not in excluded]
        for index in sorted(slots)
    }
    return space.restrict(kept) if kept else space


def edge_groups(space: SearchSpace, part: str) -> list[list[int]]:
    """Indices of the slots that enter the same node, one list per node.

    Args:
        space: Whose slots.
        part: Of a strategy, which needs the edges; for the message.

    Raises:
        InputError: If a slot of the space is no edge.
    """
    groups: dict[str, list[int]] = {}
    for index, slot in enumerate(space.slots):
        if slot.group is None:
            raise InputError(
                f"{part} needs edges, but slot {slot.name} of search space '{space.name}' is none; choose a strategy "
                f"without it"
            )
        groups.setdefault(slot.group, []).append(index)
    return list(groups.values())


def _one_hot(logits: Tensor) -> Tensor:
    return torch.nn.functional.one_hot(logits.detach().argmax(), len(logits)).to(logits.dtype)
