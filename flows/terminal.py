"""The terminal's view of a run: Prefect's log goes to a file, and a failure becomes a sentence."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from prefect.logging.configuration import setup_logging
from prefect.logging.handlers import PrefectConsoleHandler

from nas_core.errors import InputError


@contextmanager
def log_to(path: Path, *, verbose: bool) -> Iterator[None]:
    """Within, Prefect's log is appended to a file, and reaches the terminal only if `verbose`."""
    root, prefect = logging.getLogger(), logging.getLogger("prefect")
    # Prefect sets its handlers up when it first logs; do it now, so that there is something to remove.
    setup_logging()
    path.parent.mkdir(parents=True, exist_ok=True)
    file = logging.FileHandler(path)
    file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    consoles = [] if verbose else [handler for handler in root.handlers if isinstance(handler, PrefectConsoleHandler)]
    for handler in consoles:
        root.removeHandler(handler)
    prefect.addHandler(file)
    try:
        yield
    finally:
        prefect.removeHandler(file)
        file.close()
        for handler in consoles:
            root.addHandler(handler)


def describe_failure(state: Any) -> tuple[str, int]:
    """One sentence about a flow run that did not complete, and the exit code for it: 2 for bad input, else 1."""
    try:
        error = state.result(raise_on_failure=False)
    except Exception as raised:  # noqa: BLE001 - whatever it is, it is what there is to report
        error = raised
    if isinstance(error, InputError):
        return str(error), 2
    kind = type(error).__name__ if isinstance(error, BaseException) else state.name
    return f"the run failed ({kind}: {error or state.message})", 1
