"""The last word of a container: why it ended, where the kubelet looks for it."""

import os
import sys
from pathlib import Path

TERMINATION_LOG = Path("/dev/termination-log")
MOST_BYTES = 4096  # the kubelet keeps no more


def say_why(message: str) -> None:
    """Write the termination message, ``Reason: what happened. Fix: what to do.``, for the kubelet."""
    path = Path(os.environ.get("KAIFLOW_TERMINATION_LOG", TERMINATION_LOG))
    try:
        path.write_text(message[:MOST_BYTES])
    except OSError:
        print(message, file=sys.stderr)  # noqa: T201  (outside a pod there is no termination log)
