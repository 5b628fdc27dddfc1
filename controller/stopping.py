"""``kaiflow stop`` and ``kaiflow delete``: end what runs for a Workspace on this machine."""

import os
import signal
import time

from controller.state import StateFolder
from presets.errors import KaiflowError
from steps import local_server

WAIT_SECONDS = 150.0  # the longest grace of a step, and the exit handler


def stop(folder: StateFolder) -> list[str]:
    """Stop the run and the server of a Workspace; return what was stopped, in words.

    Raises:
        KaiflowError: the run did not end in time.
    """
    stopped = []
    runner = folder.runner()
    if runner is not None:
        os.kill(runner, signal.SIGTERM)
        deadline = time.monotonic() + WAIT_SECONDS
        while folder.runner() is not None:
            if time.monotonic() > deadline:
                raise KaiflowError(
                    "StopSlow", f"The run (pid {runner}) has not ended yet.", fix="Try again in a minute."
                )
            time.sleep(0.1)
        stopped.append("the run")
    if local_server.stop(folder.work / "deploy"):
        stopped.append("the server")
    return stopped
