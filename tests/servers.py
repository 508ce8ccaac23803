"""Servers on this machine, each on a port of its own."""

import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from http.client import HTTPException, HTTPMessage
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

ATTEMPTS = 5
START_UP_SECONDS = 120


def is_success(status: int, _headers: HTTPMessage) -> bool:
    """Whether an answer says that what was asked for is done."""
    return 200 <= status < 300


@contextmanager
def serving(
    command: Callable[[int], list[str]],
    request: Callable[[int], Request],
    folder: Path,
    *,
    expected: Callable[[int, HTTPMessage], bool] = is_success,
    environment: Callable[[int], Mapping[str, str]] = lambda _: os.environ,
) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """A server from its first answer on, in a process group of its own: its port and its process; ended afterwards.

    A port that is free when it is chosen may be taken when the server comes to bind it. A server that ends before it
    answers is therefore started again, on another.

    Args:
        command: The server's, for a port.
        request: What to ask the server at a port.
        folder: Where it works, and leaves its log.
        expected: Whether an answer, by its status and headers, is the one to wait for.
        environment: The server's, for a port.
    """
    with ExitStack() as stack:
        for _ in range(ATTEMPTS):
            port = free_port()
            with (folder / "server.log").open("a") as log:
                process = subprocess.Popen(
                    command(port),
                    env=environment(port),
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    cwd=folder,
                    start_new_session=True,
                )
            stack.callback(_end, process)
            if _answers(process, request(port), expected):
                yield port, process
                return
        raise RuntimeError(f"no server stays up; {folder / 'server.log'} says why")


def free_port() -> int:
    """A port that nobody uses at the moment."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def _answers(process: subprocess.Popen[bytes], request: Request, expected: Callable[[int, HTTPMessage], bool]) -> bool:
    """Wait for the expected answer, or the process's end; whether it is alive to have given it."""
    deadline = time.monotonic() + START_UP_SECONDS
    while process.poll() is None:
        answer = _answer(request)
        if answer is not None and expected(*answer):
            return process.poll() is None
        if time.monotonic() > deadline:
            raise TimeoutError(f"{request.full_url} is not ready: {answer and answer[0]}")
        time.sleep(0.2)
    return False


def _answer(request: Request) -> tuple[int, HTTPMessage] | None:
    """Status and headers of an answer, a refusal included; None: there is none."""
    try:
        with urlopen(request, timeout=10) as response:
            return response.status, response.headers
    except HTTPError as refusal:
        with refusal:
            return refusal.code, refusal.headers
    except (OSError, HTTPException):
        return None


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    process.wait(timeout=30)
