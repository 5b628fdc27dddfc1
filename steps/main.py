"""``python -m steps.main VERB --request FILE --work DIR``: run one step, map errors to exit codes.

Exit codes are those of sysexits.h: 0 done, 65 bad data, 69 service unavailable, 75 try again, 77 not
permitted, 78 bad config, 70 a fault of kaiflow's own; 143 after SIGTERM. The termination message — which
Argo puts into the node's message — reads ``Reason: what happened. Fix: what to do.``
"""

import argparse
import importlib
import os
import signal
import sys
import threading
import time
import traceback
from pathlib import Path
from types import FrameType

from presets.errors import KaiflowError
from presets.os_errors import explain_os_error
from steps import logs
from steps.contract import BEGAN, VERBS, Context, Request, Result, write_result
from steps.machine import thread_environment
from steps.progress import progress_from_environment
from steps.store import DIGEST, REGISTRY_PREFIX, open_store
from steps.termination import say_why

TERMINATED = 128 + signal.SIGTERM
ENGINE_PID = "KAIFLOW_ENGINE_PID"  # set by the local engine alone
ENGINE_CHECK_SECONDS = 0.5
ENGINE_GRACE_SECONDS = 10.0


class _Terminated(BaseException):
    """SIGTERM arrived; not an Exception, so that no step swallows it."""


def main(arguments: list[str] | None = None) -> int:
    """Run the step that the arguments name and return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m steps.main", description="Run one step of a kaiflow run.")
    parser.add_argument("verb", choices=VERBS)
    parser.add_argument("--request", type=Path, required=True, help="JSON file that says what to do")
    parser.add_argument("--work", type=Path, required=True, help="folder of the step's own")
    options = parser.parse_args(arguments)
    os.environ.setdefault(BEGAN, str(time.monotonic()))
    os.environ.update({k: v for k, v in thread_environment().items() if k not in os.environ})
    signal.signal(signal.SIGTERM, _on_sigterm)
    _end_with_engine()
    try:
        request = Request.model_validate_json(options.request.read_bytes())
        run(request, options.work)
    except KaiflowError as error:
        return _fail(error)
    except _Terminated:
        logs.warning("terminated", signal="SIGTERM")
        return TERMINATED
    except Exception as error:  # the last line of defence: a fault of our own, with its traceback in the log
        explained = explain_os_error(error)
        return _fail(explained) if explained else _fault()
    return 0


def run(request: Request, work: Path) -> Result:
    """Run the step in this process; the result is written below ``work`` and returned."""
    work.mkdir(parents=True, exist_ok=True)
    logs.configure({"step": request.verb, "workspace": f"{request.workspace.namespace}/{request.workspace.name}"})
    logs.event("started", revision=request.workspace.revision)
    module = importlib.import_module(f"steps.{request.verb}")
    result: Result = module.run(request, Context(work, progress_from_environment()))
    if result.outputs.get("cached") == "true" and request.store.startswith(REGISTRY_PREFIX):
        _still_needed(request.store, [value for value in result.outputs.values() if DIGEST.fullmatch(value)])
    write_result(result, request.verb, work)
    logs.event("finished", outputs=dict(result.outputs), **{k: v for k, v in result.figures.items() if k != "outputs"})
    return result


def _still_needed(store: str, digests: list[str]) -> None:
    """Tell a look at what nobody needs that a run has found these, and goes on to need them."""
    from steps.registry_pruning import unmark
    from steps.registry_store import RegistryStore

    try:
        opened = open_store(store)
        if isinstance(opened, RegistryStore):
            unmark(opened, digests)
    except KaiflowError as error:  # what was found may be lost to the next look: that is no reason to fail
        logs.warning("not_unmarked", reason=error.reason, message=error.message)


def _fail(error: KaiflowError) -> int:
    logs.warning("failed", reason=error.reason, message=error.message, fix=error.fix, exit_code=error.exit_code)
    say_why(f"{error.reason}: {error.message} Fix: {error.fix}")
    return error.exit_code


def _fault() -> int:
    traceback.print_exc()
    kind = sys.exc_info()[0]
    say_why(
        f"InternalError: The step ended with {kind.__name__ if kind else 'an error'}. Fix: Read the step's log"
        " (kaiflow logs), and report it."
    )
    return KaiflowError.exit_code


def _end_with_engine() -> None:
    """Do not outlive the local engine: a killed engine cannot stop its steps, and the next run starts its own."""
    engine = os.environ.get(ENGINE_PID, "")
    if not engine.isdecimal():
        return

    def watch() -> None:
        while os.getppid() == int(engine):
            time.sleep(ENGINE_CHECK_SECONDS)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(ENGINE_GRACE_SECONDS)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, name="engine-watch", daemon=True).start()


def _on_sigterm(_signal: int, _frame: FrameType | None) -> None:
    raise _Terminated


if __name__ == "__main__":
    sys.exit(main())
