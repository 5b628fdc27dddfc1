"""``kaiflow run``: a Workspace on this machine, its status kept true in the state folder while it runs."""

import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from controller.failure import CLI_INTERRUPTED, Failure
from controller.loading import Loaded
from controller.mirror import mirror
from controller.observed_steps import read_steps
from controller.planning import plan_status
from controller.run_failure import find_failure
from controller.state import StateFolder
from controller.training_log import training_events
from pipelines.local import LocalEngine
from pipelines.plan import Plan, plan
from steps.contract import PROVISIONER_LABEL, timestamp
from steps.store import LAYOUT_PREFIX

WRITE_SECONDS = 1.0

Watcher = Callable[[dict[str, Any], list[dict[str, Any]]], None]  # Workspace, training events since the last call


@dataclass(frozen=True, slots=True)
class RunOptions:
    """What a run on this machine may choose."""

    port: int = 0  # of the inference server; 0: a free one
    push: bool = False  # the image to output.image too


@dataclass(frozen=True, slots=True)
class RunResult:
    """How a run ended."""

    workspace: dict[str, Any]
    failure: Failure | None
    interrupted_by: signal.Signals | None
    unwritten: str | None  # why the status in the state folder is not this one

    @property
    def exit_code(self) -> int:
        """The exit code of the command."""
        if self.interrupted_by is not None:
            return CLI_INTERRUPTED if self.interrupted_by is signal.SIGINT else 128 + self.interrupted_by
        return self.failure.cli_exit_code if self.failure else 0


def run(loaded: Loaded, folder: StateFolder, options: RunOptions, watcher: Watcher) -> RunResult:
    """Run the Workspace to its end, SIGINT and SIGTERM included.

    Raises:
        RunInProgressError: it is running already.
        InvalidInput: its Workflow asks for what one machine cannot do.
    """
    with folder.locked():
        planned = plan(loaded.recipe)
        workflow = _workflow(planned, folder, options)
        for log in folder.logs.glob("*.log"):
            log.unlink()
        recorder = _Recorder(loaded, plan_status(planned), folder, watcher)
        # Not in the state folder: what a step says when that disk is full must have another place.
        with tempfile.TemporaryDirectory(prefix="kaiflow-") as pods:
            engine = LocalEngine(workflow, Path(pods), folder.logs, recorder)
            with _stopping(engine) as received:
                final = engine.run()
        workspace = recorder.record(final, finished=True)
    failure = find_failure(final, read_steps(final))
    return RunResult(workspace, failure, received[0] if received else None, recorder.unwritten)


def _workflow(planned: Plan, folder: StateFolder, options: RunOptions) -> dict[str, Any]:
    """Return the very Workflow that a cluster would get, with this machine's arguments."""
    from pipelines.workflow import compile_workflow

    workflow = compile_workflow(planned)
    here = {
        "workdir": str(folder.work),
        "store": f"{LAYOUT_PREFIX}{folder.store}",
        "target": "local",
        "port": str(options.port),
        "stage": "true",
        "publish": str(options.push).lower(),
        "scheduled": "false",
    }
    for parameter in workflow["spec"]["arguments"]["parameters"]:
        parameter["value"] = here[parameter["name"]]
    workflow["metadata"]["labels"][PROVISIONER_LABEL] = "local"
    return workflow


def _beside(before: Mapping[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    """Return the status of a run beside which an earlier one's server goes on, and its image is still there."""
    kept = {key: before[key] for key in ("output", "endpoint") if key in before and key not in now}
    if "endpoint" not in kept:
        return {**now, **kept}
    serving = {c["type"]: c for c in before.get("conditions", ()) if c["type"] == "InferenceReady"}
    return {**now, **kept, "conditions": [serving.get(c["type"], c) for c in now["conditions"]]}


class _Recorder:
    """Mirrors every change of the Workflow into the state folder, and passes it on to whoever watches."""

    def __init__(self, loaded: Loaded, planned: dict[str, Any], folder: StateFolder, watcher: Watcher) -> None:
        self._loaded = loaded
        self._folder = folder
        self._watcher = watcher
        self._lock = threading.Lock()
        stored = folder.true_now() or {}
        self._before: Mapping[str, Any] = stored.get("status") or {}
        self._status = dict(self._before)
        self._body = loaded.workspace.model_dump(
            mode="json", by_alias=True, exclude={"status"}, exclude_none=True, exclude_defaults=True
        )
        created = stored.get("metadata", {}).get("creationTimestamp") or timestamp()
        self._body = {"apiVersion": loaded.workspace.api_version, "kind": "Workspace", **self._body}
        self._body["metadata"] = {**self._body["metadata"], "namespace": folder.namespace, "creationTimestamp": created}
        self._plan = planned
        self._written_at = 0.0
        self._phases: list[str] = []
        self._last_step = 0
        self.unwritten: str | None = None  # why the files are not as they should be

    def __call__(self, workflow: dict[str, Any]) -> None:
        self.record(workflow, finished=False)

    def record(self, workflow: dict[str, Any], *, finished: bool) -> dict[str, Any]:
        """Mirror and write; between changes of phase at most once a second."""
        with self._lock:
            events = training_events(self._folder.logs / "tune.log")
            newest = events[-1] if events else None
            generation = self._loaded.workspace.metadata.generation
            now = mirror(self._status, workflow, newest, generation, timestamp())
            self._status = {**_beside(self._before, now), "plan": self._plan}
            workspace = {**self._body, "status": self._status}
            phases = [step["phase"] for step in self._status["steps"]]
            elapsed = time.monotonic() - self._written_at
            if finished or phases != self._phases or elapsed >= WRITE_SECONDS:
                self._write(workspace, workflow)
                self._written_at, self._phases = time.monotonic(), phases
            fresh = [event for event in events if event["trained_steps"] > self._last_step]
            self._last_step = fresh[-1]["trained_steps"] if fresh else self._last_step
            self._watcher(workspace, fresh)
            return workspace

    def _write(self, workspace: dict[str, Any], workflow: dict[str, Any]) -> None:
        """Write both files; a full disk must not end the run that is to say so."""
        try:
            self._folder.write(workspace, workflow)
            self.unwritten = None
        except OSError as error:
            self.unwritten = f"The status could not be written: {error.strerror}."


@contextmanager
def _stopping(engine: LocalEngine) -> Iterator[list[signal.Signals]]:
    """Stop the engine on SIGINT and SIGTERM; the list holds the signal that came, if one did."""
    received: list[signal.Signals] = []

    def on_signal(number: int, _frame: FrameType | None) -> None:
        received.append(signal.Signals(number))
        engine.stop()

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
