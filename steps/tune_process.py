"""One of several processes that train together, started by ``accelerate launch``: see :mod:`steps.launch`."""

import argparse
import os
import signal
import sys
import threading
import time
import traceback
from pathlib import Path

from presets.errors import KaiflowError, TryAgainError
from steps import logs
from steps.contract import Context, Request
from steps.launch import PARENT, STOP_FILE, tell
from steps.progress import progress_from_environment
from steps.quiet import quiet_libraries
from steps.store import open_store

CHECK_SECONDS = 0.5


def main() -> int:
    """Train with the others; the first process, or whichever fails, writes the outcome."""
    parser = argparse.ArgumentParser(prog="python -m steps.tune_process", description=__doc__)
    for name in ("--request", "--work", "--key", "--tag", "--attempt"):
        parser.add_argument(name, required=True)
    options = parser.parse_args()
    _end_with_parent()
    request = Request.model_validate_json(Path(options.request).read_bytes())
    work = Path(options.work)
    logs.configure({"step": request.verb, "workspace": f"{request.workspace.namespace}/{request.workspace.name}"})
    quiet_libraries()
    try:
        _train(request, work, options.key, options.tag, int(options.attempt))
    except KaiflowError as error:
        known = {"kind": type(error).__name__, "reason": error.reason, "message": error.message, "fix": error.fix}
        tell(work, error=known)
        return 0 if isinstance(error, TryAgainError) else error.exit_code  # others still wait, unless all were stopped
    except Exception as error:
        from steps.training import is_out_of_memory

        if is_out_of_memory(error):
            tell(work, out_of_memory=True)
        else:
            traceback.print_exc()
        return 1
    return 0


def _train(request: Request, work: Path, key: str, tag: str, attempt: int) -> None:
    from steps import processes
    from steps.gauges import served
    from steps.interruption import Interruption
    from steps.training_job import Job, train_first, train_job

    processes.take_gpu()
    interruption = Interruption((work / STOP_FILE).exists)
    if not processes.is_first():
        logs.silence()
        train_job(Job(request, Context(work, _nobody), key), None, interruption, attempt)
        return
    with served(request) as gauges:
        context = Context(work, progress_from_environment(), gauges)
        figures = train_first(request, context, key, open_store(request.store), tag, interruption, attempt)
    tell(work, figures=figures)


def _nobody(done: int, total: int) -> None:
    """Hear nothing: one process reports the progress of all."""


def _end_with_parent() -> None:
    """Do not outlive the step: a killed step cannot stop what its launcher has started."""
    parent = int(os.environ[PARENT])

    def watch() -> None:
        while Path(f"/proc/{parent}").exists():
            time.sleep(CHECK_SECONDS)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()


if __name__ == "__main__":
    sys.exit(main())
