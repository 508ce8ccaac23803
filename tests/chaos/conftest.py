"""The `dfnas` command as users run it, against a server and beside a finished run of its own."""

from tests.flows.conftest import dfnas, finished_run, prefect_server, tiny_config

__all__ = ["dfnas", "finished_run", "prefect_server", "tiny_config"]
