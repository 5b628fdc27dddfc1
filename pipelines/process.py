"""One container of a Workflow as a local process: environment, request file, deadline, stop, outputs.

A process is started in a session of its own, so that a stop reaches its children too. The work directory is a
parameter of the Workflow, so that no mounts are needed.
"""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

POLL_SECONDS = 0.05
_PROGRESS = re.compile(r"\d+/\d+")


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a process ended."""

    exit_code: int
    message: str  # the termination message, or why it was stopped; empty after success
    could_start: bool = True


def run_container(
    template: Mapping[str, Any],
    folder: Path,
    log: Path,
    *,
    deadline_seconds: float | None,
    grace_seconds: float,
    stop: threading.Event,
    on_progress: Callable[[str], object],
) -> Outcome:
    """Run the container of ``template``, tags filled in, and wait for it.

    ``folder`` is the engine's own for this attempt; output is appended to ``log``. When ``stop`` is set or
    the deadline passes, the process gets SIGTERM and, after the grace, SIGKILL.
    """
    folder.mkdir(parents=True, exist_ok=True)
    log.parent.mkdir(parents=True, exist_ok=True)
    for artifact in template.get("inputs", {}).get("artifacts", ()):
        target = Path(artifact["path"])
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(artifact["raw"]["data"])
    for parameter in template.get("outputs", {}).get("parameters", ()):
        Path(parameter["valueFrom"]["path"]).unlink(missing_ok=True)  # of an earlier attempt or run
    progress, why = folder / "progress", folder / "termination-log"
    for old in (progress, why):
        old.unlink(missing_ok=True)
    container = template["container"]
    command = _command(container)
    environment = _environment(container, progress, why)
    with log.open("ab") as output:
        try:
            process = subprocess.Popen(
                command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
                start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            return Outcome(1, f"cannot start {command[0]}: {error.strerror}", could_start=False)
    reason = _wait(process, deadline_seconds, grace_seconds, stop, lambda: _report(progress, on_progress))
    _report(progress, on_progress)
    code = process.returncode if process.returncode >= 0 else 128 - process.returncode
    said = why.read_text(errors="replace").strip() if why.exists() else ""
    return Outcome(code, reason or (said if code else ""))


def _wait(
    process: subprocess.Popen[bytes],
    deadline_seconds: float | None,
    grace_seconds: float,
    stop: threading.Event,
    tick: Callable[[], None],
) -> str:
    """Wait for the process; return why it was ended, empty when it ended by itself."""
    end = time.monotonic() + deadline_seconds if deadline_seconds else None
    while process.poll() is None:
        tick()
        if end is not None and time.monotonic() > end:
            _end(process, grace_seconds)
            return "Pod was active on the node longer than the specified deadline"
        if stop.wait(POLL_SECONDS):
            _end(process, grace_seconds)
            return "workflow shutdown with strategy: Terminate"
    return ""


def _end(process: subprocess.Popen[bytes], grace_seconds: float) -> None:
    _signal(process, signal.SIGTERM)
    try:
        process.wait(grace_seconds)
    except subprocess.TimeoutExpired:
        _signal(process, signal.SIGKILL)
        process.wait()


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        return


def _report(progress: Path, on_progress: Callable[[str], object]) -> None:
    try:
        text = progress.read_text(errors="replace").strip()
    except OSError:
        return
    if _PROGRESS.fullmatch(text):
        on_progress(text)


def _command(container: Mapping[str, Any]) -> list[str]:
    command = [*container.get("command", ()), *container.get("args", ())]
    return [sys.executable, *command[1:]] if command[0] == "python" else command


def _environment(container: Mapping[str, Any], progress: Path, why: Path) -> dict[str, str]:
    # A Secret's key stands for the variable of the same name in the caller's own environment.
    named = {v["name"]: v["value"] for v in container.get("env", ()) if "value" in v}
    engine = {
        "ARGO_PROGRESS_FILE": str(progress),
        "KAIFLOW_TERMINATION_LOG": str(why),
        "PYTHONSAFEPATH": "1",
        "KAIFLOW_ENGINE_PID": str(os.getpid()),
    }
    return {**os.environ, **named, **engine, "PYTHONUNBUFFERED": "1"}


def read_outputs(template: Mapping[str, Any]) -> list[dict[str, str]]:
    """Return the output parameters that the container wrote.

    Raises:
        FileNotFoundError: one is missing and has no default.
    """
    found = []
    for parameter in template.get("outputs", {}).get("parameters", ()):
        source = parameter["valueFrom"]
        path = Path(source["path"])
        if path.is_file():
            value = path.read_text(errors="replace").rstrip("\n")
        elif "default" in source:
            value = source["default"]
        else:
            raise FileNotFoundError(f"the step wrote no output {parameter['name']}")
        found.append({"name": parameter["name"], "value": value})
    return found
