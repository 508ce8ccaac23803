"""How a long computation keeps its state and shows its progress, without knowing where either goes."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Checkpoint:
    """Where a long computation keeps its state, without knowing where that is.

    Attributes:
        state: What an interrupted run saved last, or None to start afresh.
        save: Stores a state (a dict of tensors and plain values) atomically.
    """

    state: dict[str, Any] | None = None
    save: Callable[[dict[str, Any]], None] = lambda _: None


# Called as progress(done, total, figures): figures are a few numbers worth showing, such as {"loss": 0.4}.
Progress = Callable[[int, int, dict[str, float]], None]


def no_progress(done: int, total: int, figures: dict[str, float]) -> None:
    """A `Progress` that shows nothing."""
