"""How a long computation keeps its state and shows its progress, without knowing where either goes."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Checkpoint:
    """Where a long computation keeps its state, without knowing where that is.

    Attributes:
        state: What an interrupted run saved last, or None to start afresh.
        save: Stores a state (a dict of tensors and plain values) atomically.
        seconds: How much work `offer` may lose; when a state is saved has no influence on any result.
        urgent: Whether the next `offer` is to be taken at once.
    """

    state: dict[str, Any] | None = None
    save: Callable[[dict[str, Any]], None] = lambda _: None
    seconds: float = 30.0
    urgent: Callable[[], bool] = lambda: False
    _clock: list[float] = field(default_factory=lambda: [time.monotonic()], repr=False, compare=False)

    def offer(self, state: Callable[[], dict[str, Any]]) -> None:
        """Save what `state` returns, unless this checkpoint was made or saved less than `seconds` ago."""
        now = time.monotonic()
        if now - self._clock[0] >= self.seconds or self.urgent():
            self.save(state())
            self._clock[0] = time.monotonic()


# Called as progress(done, total, figures): figures are a few numbers worth showing, such as {"loss": 0.4}.
Progress = Callable[[int, int, dict[str, float]], None]


def no_progress(done: int, total: int, figures: dict[str, float]) -> None:
    """A `Progress` that shows nothing."""
