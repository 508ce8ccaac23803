"""The search strategies, by name; importing this package registers all of them."""

from nas_core.strategies import presets as presets
from nas_core.strategies.base import SearchOutcome, SearchTask, Strategy, strategies
from nas_core.strategies.budget import Budget, latency_budget, macs_budget, make_budget, parameter_budget
from nas_core.strategies.grid import Grid

__all__ = [
    "Budget",
    "Grid",
    "SearchOutcome",
    "SearchTask",
    "Strategy",
    "latency_budget",
    "macs_budget",
    "make_budget",
    "parameter_budget",
    "strategies",
]
