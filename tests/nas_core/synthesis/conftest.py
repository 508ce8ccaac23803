"""What an engine shows the teacher, for tests of every engine."""

import pytest
from torch import Tensor

from nas_core.synthesis import objective


@pytest.fixture
def views(monkeypatch) -> list[tuple[Tensor, Tensor]]:
    """What an engine showed the teacher, and the teacher's logits."""
    seen: list[tuple[Tensor, Tensor]] = []

    class Watched(objective.ObservedTeacher):
        def __call__(self, x: Tensor):
            logits, statistics = super().__call__(x)
            seen.append((x.detach().clone(), logits.detach().clone()))
            return logits, statistics

    monkeypatch.setattr(objective, "ObservedTeacher", Watched)
    return seen
