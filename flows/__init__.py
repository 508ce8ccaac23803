"""What happens in which order: the Prefect flow, and the `dfnas` command."""

import os

# No outside look-ups, unless the user asks for them. Set before Prefect is imported, which reads them once.
os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
# A run says every 30 seconds, the least that Prefect allows, that it is alive (see flows/crashes.py).
os.environ.setdefault("PREFECT_FLOWS_HEARTBEAT_FREQUENCY", "30")
# Requests that the server is too busy for, or that do not reach it, are tried again for four minutes instead of one.
os.environ.setdefault("PREFECT_CLIENT_MAX_RETRIES", "7")
