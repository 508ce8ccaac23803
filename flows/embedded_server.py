"""Prefect's embedded server, such that it does not outlive the command that brought it, however that ends.

Prefect stops its server at the interpreter's exit, which SIGKILL does not reach: the server would stay, with its port
and a quarter of a gigabyte, and Prefect (3.8) has no means against that.
"""

import subprocess
import sys
from pathlib import Path
from typing import Any

from prefect.server.api.server import SubprocessASGIServer

WATCH = Path(__file__).with_name("parent_watch.py")


class EmbeddedServer(SubprocessASGIServer):
    """The server that Prefect starts in a process of its own where there is no PREFECT_API_URL; one per process.

    Make one before Prefect does, which then takes it for its own.
    """

    _watch: subprocess.Popen[bytes] | None = None

    def _run_uvicorn_command(self) -> subprocess.Popen[Any]:
        """Start the server, and beside it what ends it with this process."""
        server = super()._run_uvicorn_command()
        self._end_watch()
        self._watch = subprocess.Popen(
            [sys.executable, "-I", "-S", str(WATCH), str(server.pid)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            # Ctrl-C on a terminal goes to the whole group.
            start_new_session=True,
        )
        return server

    def stop(self) -> None:
        """End the server, if it runs."""
        super().stop()
        self._end_watch()

    def _end_watch(self) -> None:
        if self._watch is not None:
            self._watch.kill()
            self._watch.communicate()
            self._watch = None
