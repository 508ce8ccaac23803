"""Prefect's log and our own, in a file of the run directory instead of on the terminal."""

import logging
import os
from pathlib import Path

import prefect.main  # noqa: F401 - sets its handlers up, so that there is something to remove
from prefect.logging.handlers import PrefectConsoleHandler


def log_to(path: Path, *, verbose: bool) -> None:
    """From now on append this process's log to a file, and show it on the terminal only if `verbose`."""
    if not verbose:
        os.environ["PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL"] = "CRITICAL"  # of processes that this one starts
    root = logging.getLogger()
    for handler in [] if verbose else list(root.handlers):
        if isinstance(handler, PrefectConsoleHandler):
            root.removeHandler(handler)
    path.parent.mkdir(parents=True, exist_ok=True)
    file = logging.FileHandler(path)
    file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    for name in ("prefect", "flows", "tasks", "storage", "nas_core"):
        logging.getLogger(name).addHandler(file)
