"""The search strategies, by name; importing this package registers what builds them."""

from nas_core.settings.presets import strategies
from nas_core.strategies import differentiable as differentiable
from nas_core.strategies import proxyless as proxyless
from nas_core.strategies import spos as spos
from nas_core.strategies import successive_halving as successive_halving
from nas_core.strategies import training_free as training_free
from nas_core.strategies.base import SearchOutcome, SearchTask, Strategy
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
