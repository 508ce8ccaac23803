"""The Prefect server of the user's: whether it answers."""

from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

PATIENCE_SECONDS = 5.0
REMEDY = "start it (`prefect server start`), or unset PREFECT_API_URL to do without"
"""What to do about a server that does not answer."""


def silent_server() -> str | None:
    """Which server does not answer, and why; None if it does, or if PREFECT_API_URL names none."""
    url = PREFECT_API_URL.value()
    if not url:
        return None
    with (
        temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}),
        get_client(httpx_settings={"timeout": PATIENCE_SECONDS}, sync_client=True) as client,
    ):
        error = client.api_healthcheck()
    return None if error is None else f"{url} does not answer ({error})"
