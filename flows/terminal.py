"""The terminal's view of a run: Prefect's log goes to a file, and a failure becomes a sentence."""

import logging
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from prefect.logging.configuration import setup_logging
from prefect.logging.handlers import PrefectConsoleHandler
from prefect.settings import PREFECT_API_URL

from nas_core.errors import InputError

# The shell's exit code for a process ended by Ctrl-C.
INTERRUPTED = 130


def log_to(path: Path, *, verbose: bool) -> None:
    """From now on append Prefect's log to a file, and show it on the terminal only if `verbose`."""
    # Prefect sets its handlers up when it first logs; do it now, so that there is something to remove.
    setup_logging()
    root = logging.getLogger()
    for handler in [] if verbose else list(root.handlers):
        if isinstance(handler, PrefectConsoleHandler):
            root.removeHandler(handler)
    file = logging.FileHandler(path)
    file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    for name in ("prefect", "storage"):
        logging.getLogger(name).addHandler(file)


@contextmanager
def leaving_at_once() -> Iterator[None]:
    """Within, Ctrl-C ends the process at once if Prefect's embedded server is in use.

    A terminal sends the signal to that server too, and Prefect would then wait minutes for it to note the
    interruption. Nothing is lost: what is done is in the run directory. A server of the user's is told as usual.
    """
    if PREFECT_API_URL.value():
        yield
        return

    from prefect.server.api.server import SubprocessASGIServer

    def leave(*_: Any) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        os.write(2, b"\ndfnas: interrupted; the same command resumes\n")
        SubprocessASGIServer().stop()
        os._exit(INTERRUPTED)

    before = signal.signal(signal.SIGINT, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


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
