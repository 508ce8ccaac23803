"""SIGTERM, as a preempted machine sends it, and Ctrl-C: work in progress is saved, and the run ends as *Crashed*.

Prefect raises `TerminationSignal` in the flow's main thread, Python `KeyboardInterrupt`. The work itself goes on in
another thread or process, and learns of it by `STOP` the next time that it could save its state. What then is left is
Prefect's telling its server, at which it would try for minutes if that is gone: its time is limited.
"""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import wait
from types import FrameType

from prefect.exceptions import TerminationSignal

STOP = threading.Event()
"""Set once this process has been asked to end."""
TELLING_SECONDS = 20.0
"""How long Prefect may take, once the work has stopped, to tell its server so; usually a second or two."""

_AT_WORK: set[object] = set()
_TOLD: list[int] = []  # By which signals, the last is this run's.


class StoppedError(Exception):
    """Work was stopped from outside, after its state was saved; doing it again goes on from there."""


def raise_if_stopped() -> None:
    """End the work at hand if this process has been asked to end."""
    if STOP.is_set():
        raise StoppedError("stopped from outside, with its state saved: run again to go on")


@contextmanager
def working() -> Iterator[None]:
    """Within, something is being done that a process which was asked to end waits for."""
    piece = object()
    _AT_WORK.add(piece)
    try:
        yield
    finally:
        _AT_WORK.discard(piece)


@contextmanager
def leaving_once_stopped(leave: Callable[[int], None]) -> Iterator[None]:
    """Within, a process that was asked to end, and whose work has stopped, here and in child processes, ends in time.

    Args:
        leave: Ends the process, given the signal that asked; called, from another thread, if it has not ended by itself
            in `TELLING_SECONDS`.
    """
    over = threading.Event()
    threading.Thread(target=_leave_once_stopped, args=(leave, over), daemon=True).start()
    try:
        yield
    finally:
        over.set()


@contextmanager
def saving_on_termination() -> Iterator[None]:
    """Within, SIGTERM and Ctrl-C make the work in progress, here and in child processes, save its state and stop."""
    try:
        yield
    except (TerminationSignal, KeyboardInterrupt) as error:
        _stop_work(signal.SIGINT if isinstance(error, KeyboardInterrupt) else signal.SIGTERM)
        raise


@contextmanager
def holding_signals_back() -> Iterator[None]:
    """Within, SIGTERM and Ctrl-C do the same, but interrupt nothing; the first of all takes effect afterwards."""
    if threading.current_thread() is not threading.main_thread():
        yield  # Signals are the main thread's.
        return
    asked_before = STOP.is_set()
    before = {number: signal.signal(number, _stop_work) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
    if STOP.is_set() and not asked_before:
        signal.raise_signal(_TOLD[-1])


def _stop_work(number: int, _frame: FrameType | None = None) -> None:
    if not STOP.is_set():
        _TOLD.append(number)
    STOP.set()
    for child in multiprocessing.active_children():
        child.terminate()


def obey_parent() -> None:
    """In a worker process: SIGTERM from the flow means to save and stop, Ctrl-C is the flow's, and its end is ours."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _stop_work)
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    threading.Thread(target=_leave_once_stopped, args=(os._exit, threading.Event()), daemon=True).start()


def _leave_with_parent() -> None:
    """A killed flow must leave no worker behind that writes into a directory which the next run holds."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def _leave_once_stopped(leave: Callable[[int], None], over: threading.Event) -> None:
    stopped: float | None = None
    while not over.wait(0.5):
        if not STOP.is_set() or _AT_WORK or multiprocessing.active_children():
            stopped = None
        elif stopped is None:
            stopped = time.monotonic()
        elif time.monotonic() - stopped > TELLING_SECONDS:
            leave(_TOLD[-1])
