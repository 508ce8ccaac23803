"""What every search strategy offers: given a space, data and a budget, it returns one architecture."""

import abc
import functools
import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from nas_core.checkpoint import Checkpoint, Progress, no_progress
from nas_core.ops.initialisation import initialise
from nas_core.search_spaces.base import Architecture, SearchSpace, Supernet
from nas_core.seeding import generator
from nas_core.strategies.budget import Budget
from nas_core.strategies.candidates import pareto_front
from nas_core.training.batches import Batch, SyntheticBatches
from nas_core.training.distillation import distillation_loss


@dataclass(frozen=True)
class SearchTask:
    """What a strategy works on.

    Attributes:
        space: The space to search.
        train: Batches for the supernet's weights, labelled by the teacher on the fly.
        validation: Batches for architecture weights or for rating candidates; no image of `train`.
        budget: What architectures cost, and the most that the result may.
        temperature: Temperature of the distillation loss.
        seed: The run's seed; strategies derive their generators from it.
        device: Where to compute; the teacher is there.
    """

    space: SearchSpace
    train: SyntheticBatches
    validation: SyntheticBatches
    budget: Budget
    temperature: float
    seed: int
    device: torch.device

    def supernet(self, space: SearchSpace | None = None, partial: int = 1) -> Supernet:
        """A new supernet on the device; its weights depend on nothing but the arguments and the seed.

        Args:
            space: Which space's; None: the task's.
            partial: Share of channels that pass through edges, see `SearchSpace.supernet`.
        """
        supernet = (space or self.space).supernet(partial=partial)
        initialise(supernet, generator(self.seed, "search.weights"))
        return supernet.to(self.device)

    def endless_validation(self, *position: int) -> Iterator[Batch]:
        """Validation batches, reshuffled whenever they run out; `position` tells streams apart, such as an epoch."""
        for pass_ in itertools.count():
            yield from self.validation.epoch(generator(self.seed, "search.validation", *position, pass_))

    def rating_batches(self) -> Iterable[Batch]:
        """The validation images for rating: in every pass the same windows, augmented in the same way."""
        return self.validation.fixed_repeatedly(functools.partial(generator, self.seed, "search.rating"))

    def objective(self, student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
        """The distillation loss at the task's temperature, of logits (batch, classes)."""
        return distillation_loss(student_logits, teacher_logits, self.temperature)


@dataclass(frozen=True)
class SearchOutcome:
    """What a search found and how it went.

    Attributes:
        architecture: The result, within the budget.
        training: One record per supernet epoch: {"epoch", "loss", "learning_rate", "agreement"}.
        search: One record per generation or epoch with the strategy's own figures, for the search curve.
        candidates: Rated architectures: {"architecture", "macs", "score", "generation"}, and the budget's cost by name;
            higher score is better. Empty for strategies that rate none.
        rated_loss: Mean loss on all validation images of the mixture that the result was taken from, by which grids
            choose; None for strategies that train no mixture.
    """

    architecture: Architecture
    training: list[dict[str, Any]] = field(default_factory=list)
    search: list[dict[str, Any]] = field(default_factory=list)
    candidates: list[dict[str, Any]] = field(default_factory=list)
    rated_loss: float | None = None

    def state(self) -> dict[str, Any]:
        """All of it as plain values, which `load` reads."""
        return {
            "architecture": str(self.architecture),
            "training": self.training,
            "search": self.search,
            "candidates": self.candidates,
            "rated_loss": self.rated_loss,
        }

    @classmethod
    def load(cls, space: SearchSpace, state: Mapping[str, Any]) -> "SearchOutcome":
        """What a `state` says, of a search in `space`."""
        architecture = space.parse(state["architecture"])
        return cls(architecture, state["training"], state["search"], state["candidates"], state["rated_loss"])

    def front(self, cost: str = "macs") -> list[dict[str, Any]]:
        """The candidates that no other beats in score and a cost, by its name in them, from the cheapest on."""
        return pareto_front(self.candidates, cost)


class Strategy(abc.ABC):
    """A way to search a space."""

    def check(self, space: SearchSpace, budget: Budget) -> None:
        """Refuse what cannot work, before anything expensive starts.

        Raises:
            InputError: If the space lacks what the strategy needs, or none of its architectures keeps the budget.
        """
        budget.check(space)

    @abc.abstractmethod
    def search(self, task: SearchTask, checkpoint: Checkpoint, progress: Progress = no_progress) -> SearchOutcome:
        """Run the search, or continue it from `checkpoint.state`; both end with the same result, bit for bit.

        Raises:
            InputError: Before anything is computed, see `check`.
        """
