"""`python parent_watch.py PID`: ends that process once standard input ends, which it does when the parent is gone.

Whatever ends the parent, SIGKILL included, closes the pipe that standard input is. A program of its own that imports
next to nothing, so that it costs a few megabytes and starts at once.
"""

import os
import signal
import sys
import time

GRACE_SECONDS = 10.0


def main() -> None:
    """Wait for the parent's end; then ask the process to end, and make it if it does not."""
    process = int(sys.argv[1])
    sys.stdin.buffer.read()
    deadline = time.monotonic() + GRACE_SECONDS
    try:
        os.kill(process, signal.SIGTERM)
        while time.monotonic() < deadline:
            time.sleep(0.1)
            os.kill(process, 0)
        os.kill(process, signal.SIGKILL)
    except ProcessLookupError:
        return


if __name__ == "__main__":
    main()
