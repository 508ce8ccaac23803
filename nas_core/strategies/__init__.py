"""The search strategies, by name; importing this package registers all of them."""

from nas_core.strategies import presets as presets
from nas_core.strategies.base import SearchOutcome, SearchTask, Strategy, strategies
from nas_core.strategies.budget import check_budget

__all__ = ["SearchOutcome", "SearchTask", "Strategy", "check_budget", "strategies"]
