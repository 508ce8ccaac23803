"""What `dfnas init` and `dfnas estimate` say of a run before it starts."""

from pathlib import Path

import pytest

from nas_core.estimation import Estimate
from tasks.first_contact import estimate_lines
from tasks.run import Run


@pytest.mark.parametrize(("hours", "long"), [(1.0, False), (28.0, True)])
def test_a_synthesis_that_takes_a_day_comes_with_a_way_to_a_shorter_one(finished: Run, hours: float, long: bool):
    there = Estimate({"synthesis": hours * 3600, "search": 60.0}, memory=10**9, memory_there=10**10, disk=10**6)
    text = "\n".join(estimate_lines(finished.config, there, Path("runs")))
    assert ("synthesis.classes" in text) == long
