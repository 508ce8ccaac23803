"""The terminal's view of a run: Prefect's log goes to a file, and a failure becomes a sentence."""

import functools
import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from prefect.settings import PREFECT_API_URL

from nas_core.errors import InputError
from storage.errors import StorageError
from tasks.server import REMEDY, silent_server
from tasks.shards import IncompleteError
from tasks.stopping import leaving_once_stopped

if TYPE_CHECKING:
    from flows.embedded_server import EmbeddedServer

logger = logging.getLogger(__name__)

# The shell's exit codes for a process ended by Ctrl-C and by SIGTERM.
INTERRUPTED, TERMINATED = 130, 143


@contextmanager
def leaving_at_once() -> Iterator[None]:
    """Within, Ctrl-C ends the process at once if Prefect's embedded server is in use; SIGTERM, once Prefect is done.

    That server is one that ends with this process, whatever ends it.

    A terminal sends Ctrl-C to that server too, and Prefect would then wait minutes for it to note the interruption.
    Nothing is lost: what is done is in the run directory. A server of the user's is told as usual.

    Prefect takes SIGTERM itself while a flow runs, lets work in progress save its state, and then passes it on to here;
    if its server is gone, perhaps by the same signal, not before minutes of trying to tell it, which are cut short.
    """
    server = None
    if not PREFECT_API_URL.value():
        # Its packages are no small import, and of no use where the server is another one.
        from flows.embedded_server import EmbeddedServer

        server = EmbeddedServer()  # Prefect starts and stops the one that is there.
    leave = functools.partial(_leave, server)
    before = {
        number: signal.signal(number, leave)
        for number in (signal.SIGINT, signal.SIGTERM)
        if number == signal.SIGTERM or server is not None
    }
    try:
        with leaving_once_stopped(leave):
            yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _leave(server: "EmbeddedServer | None", number: int, _frame: Any = None) -> None:
    if threading.current_thread() is threading.main_thread():
        signal.signal(number, signal.SIG_IGN)
    word, code = ("interrupted", INTERRUPTED) if number == signal.SIGINT else ("terminated", TERMINATED)
    os.write(2, f"\ndfnas: {word}; the same command resumes\n".encode())
    if server is not None and server.running:
        server.stop()
    os._exit(code)


def describe_outage(error: Exception) -> str | None:
    """One sentence about a Prefect server of the user's that does not answer; None if it does, or if there is none.

    Args:
        error: What Prefect raised instead of returning how the run ended; goes to the log.
    """
    silence = silent_server()
    if silence is None:
        return None
    logger.error("Prefect has no server to run with", exc_info=error)
    return f"the Prefect server {silence}: {REMEDY}"


def describe_failure(state: Any) -> tuple[str, int]:
    """One sentence about a flow run that did not complete, and the exit code for it: 2 for bad input, else 1."""
    try:
        error = state.result(raise_on_failure=False)
    except Exception as raised:  # noqa: BLE001 - whatever it is, it is what there is to report
        error = raised
    if isinstance(error, InputError):
        return str(error), 2
    if isinstance(error, (IncompleteError, StorageError)):
        return str(error), 1
    kind = type(error).__name__ if isinstance(error, BaseException) else state.name
    return f"the run failed ({kind}: {error or state.message})", 1
