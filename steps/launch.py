"""One process or several?  The training in this one, or one per GPU of the node, by ``accelerate launch``.

Several processes tell their end in a file: the launcher's exit code is its own. SIGTERM, too, travels as a file: the
launcher would give its children thirty seconds and then kill them, and a step with its checkpoint may take longer.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

from presets import errors
from presets.errors import KaiflowError, UnavailableError
from steps import logs
from steps.contract import REQUEST_FILE, Context, Request
from steps.store import Store

PROCESSES = "KAIFLOW_PROCESSES"  # how many, where the number of GPUs is not the answer
PARENT = "KAIFLOW_PARENT_PID"
STOP_FILE, OUTCOME_FILE = "stop-asked", "outcome.json"


def processes_here(gpus: int) -> int:
    """Return how many processes train on this node: one a GPU, at least one."""
    named = os.environ.get(PROCESSES, "")
    return max(1, int(named)) if named.isdecimal() else max(1, gpus)


def train_here(request: Request, context: Context, key: str, store: Store, tag: str) -> dict[str, Any]:
    """Train in this process; return the figures."""
    from steps.quiet import quiet_libraries

    quiet_libraries()  # before others are imported, which speak while they are
    from steps.gauges import served
    from steps.interruption import Interruption
    from steps.training_job import train_first

    with served(request) as gauges:
        return train_first(request, replace(context, figures=gauges), key, store, tag, Interruption())


def train_together(request: Request, context: Context, key: str, tag: str, count: int) -> dict[str, Any]:
    """Train in ``count`` processes; return the figures of the first.

    Raises:
        KaiflowError: what the first one to fail has raised.
    """
    told, stop = context.work / OUTCOME_FILE, context.work / STOP_FILE
    asked = context.work / f"together-{REQUEST_FILE}"
    asked.write_text(request.model_dump_json())
    arguments = ["--request", str(asked), "--work", str(context.work), "--key", key, "--tag", tag]
    attempt = 0
    while True:
        for path in (told, stop):
            path.unlink(missing_ok=True)
        code = _launch([*arguments, "--attempt", str(attempt)], count, stop)
        outcome: dict[str, Any] = json.loads(told.read_text()) if told.exists() else {}
        if "figures" in outcome:
            figures: dict[str, Any] = outcome["figures"]
            return figures
        if not outcome.get("out_of_memory"):
            raise _failure(outcome, code)
        attempt += 1
        logs.warning("out_of_memory", attempt=attempt)


def tell(work: Path, **outcome: Any) -> None:  # noqa: ANN401  (what JSON takes)
    """Say how a process ended; the first word stands."""
    part = work / f"{OUTCOME_FILE}.{os.getpid()}"
    part.write_text(json.dumps(outcome))
    with suppress(FileExistsError):
        os.link(part, work / OUTCOME_FILE)
    part.unlink()


def launcher(count: int) -> list[str]:
    """Return the command before ``-m MODULE`` that starts ``count`` processes on this node."""
    return [
        sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", str(count),
        "--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0",
    ]  # fmt: skip


def _launch(arguments: list[str], count: int, stop: Path) -> int:
    command = [*launcher(count), "-m", "steps.tune_process", *arguments]
    threads = max(1, int(os.environ.get("OMP_NUM_THREADS", "1")) // count)
    environment = {**os.environ, PARENT: str(os.getpid()), "OMP_NUM_THREADS": str(threads)}
    with _sigterm_as(stop):
        return subprocess.run(command, env=environment, start_new_session=True, check=False).returncode


@contextmanager
def _sigterm_as(stop: Path) -> Iterator[None]:
    """Write ``stop`` when SIGTERM comes, rather than end."""

    def on_sigterm(_signal: int, _frame: FrameType | None) -> None:
        stop.touch()

    before = signal.signal(signal.SIGTERM, on_sigterm)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _failure(outcome: dict[str, Any], code: int) -> KaiflowError:
    error = outcome.get("error")
    if error is None:
        return UnavailableError(
            "TrainingProcessDied",
            f"A training process ended without a word (the launcher's exit code is {code}).",
            fix="Read the step's log; a process killed for memory leaves none: name a machine with more.",
        )
    kind: type[KaiflowError] = getattr(errors, error["kind"], KaiflowError)
    return kind(error["reason"], error["message"], fix=error["fix"])
