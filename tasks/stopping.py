"""SIGTERM, as a preempted machine sends it, and Ctrl-C: work in progress is saved, and the run ends as *Crashed*.

Prefect raises `TerminationSignal` in the flow's main thread, Python `KeyboardInterrupt`. The work itself goes on in
another thread or process, and learns of it by `STOP` the next time that it could save its state.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import wait
from types import FrameType

from prefect.exceptions import TerminationSignal

STOP = threading.Event()
"""Set once this process has been asked to end."""


class StoppedError(Exception):
    """Work was stopped from outside, after its state was saved; doing it again goes on from there."""


def raise_if_stopped() -> None:
    """End the work at hand if this process has been asked to end."""
    if STOP.is_set():
        raise StoppedError("stopped from outside, with its state saved: run again to go on")


@contextmanager
def saving_on_termination() -> Iterator[None]:
    """Within, SIGTERM and Ctrl-C make the work in progress, here and in child processes, save its state and stop."""
    try:
        yield
    except (TerminationSignal, KeyboardInterrupt):
        _stop_work()
        raise


@contextmanager
def holding_signals_back() -> Iterator[None]:
    """Within, SIGTERM and Ctrl-C do the same, but interrupt nothing; the first of all takes effect afterwards."""
    if threading.current_thread() is not threading.main_thread():
        yield  # Signals are the main thread's.
        return
    told: list[int] = []

    def note(number: int, _: FrameType | None) -> None:
        if not STOP.is_set():
            told.append(number)
        _stop_work()

    before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
    for number in told:
        signal.raise_signal(number)


def _stop_work() -> None:
    STOP.set()
    for child in multiprocessing.active_children():
        child.terminate()


def obey_parent() -> None:
    """In a worker process: SIGTERM from the flow means to save and stop, Ctrl-C is the flow's, and its end is ours."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: STOP.set())
    threading.Thread(target=_leave_with_parent, daemon=True).start()


def _leave_with_parent() -> None:
    """A killed flow must leave no worker behind that writes into a directory which the next run holds."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
