"""`make serve`: a Prefect server, a work pool, the deployments, a worker, and a first run, until Ctrl-C.

The same by hand, each in a terminal of its own:

    prefect server start
    python -m flows.crashes
    prefect work-pool create dfnas --type process
    prefect --no-prompt deploy --all
    prefect worker start --pool dfnas
    prefect deployment run dfnas/full --watch
"""

import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

POOL = "dfnas"
START_UP_SECONDS = 120


def main() -> None:
    """Serve until interrupted. A server that already answers at PREFECT_API_URL is used as it is."""
    for stop in (signal.SIGINT, signal.SIGTERM):
        # An exit like any other, so that the blocks below stop what they started.
        signal.signal(stop, lambda *_: sys.exit(0))
    url = os.environ.setdefault("PREFECT_API_URL", "http://127.0.0.1:4200/api")
    from flows.crashes import watch_for_crashes  # Prefect, which reads the environment once, on import.

    with nullcontext() if answers(url) else background("server", "start"):
        wait_for(url)
        watch_for_crashes()
        prefect("work-pool", "create", POOL, "--type", "process", "--overwrite")
        prefect("--no-prompt", "deploy", "--all")
        with background("worker", "start", "--pool", POOL):
            prefect("deployment", "run", "dfnas/full")
            print(f"dfnas: watch the run at {url.removesuffix('/api')}; Ctrl-C stops everything", flush=True)
            signal.pause()


def prefect(*arguments: str) -> None:
    """Run a Prefect command, and end the program with its exit code if it fails."""
    command = [sys.executable, "-m", "prefect", *arguments]
    code = subprocess.run(command, check=False).returncode
    if code:
        sys.exit(code)


@contextmanager
def background(*arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """A Prefect command that runs as long as the block."""
    process = subprocess.Popen([sys.executable, "-m", "prefect", *arguments])
    try:
        yield process
    finally:
        process.terminate()
        process.wait(timeout=30)


def answers(url: str) -> bool:
    """Whether a server answers there."""
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=2) as response:
            return response.status == 200
    except OSError:
        return False


def wait_for(url: str) -> None:
    """Wait until the server answers; end the program if it does not."""
    deadline = time.monotonic() + START_UP_SECONDS
    while not answers(url):
        if time.monotonic() > deadline:
            sys.exit(f"dfnas: no Prefect server answers at {url}; is the port free?")
        time.sleep(0.5)


if __name__ == "__main__":
    main()
