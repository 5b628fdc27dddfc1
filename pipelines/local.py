"""The local engine: runs an Argo Workflow as processes of this machine, and writes Argo-shaped status.

It executes the very object that a cluster would get: dependencies, parameters, ``when``, retries with their
expression and backoff, deadlines, the exit handler. What it cannot honour it refuses by name
(``pipelines.support``) before anything starts.
"""

import concurrent.futures as cf
import copy
import json
import math
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pipelines.expressions import ExpressionError, depends_met, evaluate, tasks_in, when_holds
from pipelines.nodes import Node, StatusBook, node_id
from pipelines.process import Outcome, read_outputs, run_container
from pipelines.substitution import UnresolvedError, fill, parameters, seconds
from pipelines.support import check_supported, depends_of, find_template, grace_seconds
from presets.os_errors import explain_os_error
from steps.contract import timestamp

FAILED = ("Failed", "Error")
DEFAULT_PARALLELISM = 8

Observer = Callable[[dict[str, Any]], None]


class LocalEngine:
    """Runs one Workflow once; ``stop`` from any thread or signal handler ends it early."""

    def __init__(self, workflow: Mapping[str, Any], folder: Path, logs: Path, observer: Observer) -> None:
        """Check that ``workflow`` can run here; ``observer`` is given the Workflow at every change of status.

        Raises:
            InvalidInput: the Workflow asks for what one machine cannot do.
        """
        check_supported(workflow)
        self._workflow = dict(workflow)
        self._name: str = workflow["metadata"]["name"]
        self._spec: Mapping[str, Any] = workflow["spec"]
        self._folder = folder
        self._logs = logs
        self._observer = observer
        self._book = StatusBook(self._name, self._tell)
        self._stop = threading.Event()
        self._telling = threading.RLock()
        arguments = parameters(self._spec.get("arguments"))
        self._globals = {f"workflow.parameters.{name}": value for name, value in arguments.items()} | {
            "workflow.name": self._name,
            "workflow.namespace": workflow["metadata"].get("namespace", "default"),
            "workflow.creationTimestamp": workflow["metadata"].get("creationTimestamp") or timestamp(),
            "workflow.status": "Running",
            "workflow.failures": "[]",
        }

    @property
    def stopped(self) -> bool:
        """Whether :meth:`stop` was called."""
        return self._stop.is_set()

    def stop(self) -> None:
        """End the running steps (SIGTERM, then SIGKILL after their grace); the exit handler still runs."""
        self._stop.set()

    def workflow(self) -> dict[str, Any]:
        """Return the Workflow with its status as it is now."""
        return {**self._workflow, "status": self._book.snapshot()}

    def run(self) -> dict[str, Any]:
        """Run to the end, the exit handler included, and return the Workflow with its final status."""
        root = self._template(self._spec["entrypoint"], self._name, self._globals, {}, self._stop)
        phase, message = root["phase"], root.get("message", "")
        handler = self._spec.get("onExit")
        if handler:
            failures = [
                {"displayName": n["displayName"], "message": n.get("message", "")}
                for n in self._book.snapshot()["nodes"].values()
                if n.get("type") == "Pod" and n.get("phase") in FAILED
            ]
            scope = {**self._globals, "workflow.status": phase, "workflow.failures": json.dumps(failures)}
            last = self._template(handler, f"{self._name}.onExit", scope, {}, threading.Event())
            if last["phase"] in FAILED and phase == "Succeeded":
                phase, message = last["phase"], f"exit handler: {last.get('message', '')}"
        self._book.finish(phase, message)
        return self.workflow()

    def _tell(self) -> None:
        with self._telling:  # one after the other, so that nobody is told an older state after a newer one
            self._observer(self.workflow())

    # Tasks

    def _dag(self, template: Mapping[str, Any], name: str, scope: Mapping[str, str]) -> Node:
        tasks = {task["name"]: task for task in template["dag"]["tasks"]}
        fail_fast = template["dag"].get("failFast", True)
        self._book.update(name, type="DAG", phase="Running", templateName=template["name"])
        done: dict[str, Node] = {}
        waiting = dict(tasks)
        running: dict[cf.Future[Node], str] = {}
        workers = int(self._spec.get("parallelism") or DEFAULT_PARALLELISM)
        with cf.ThreadPoolExecutor(max_workers=workers, thread_name_prefix="task") as pool:
            while waiting or running:
                for task in self._ready(waiting, done):
                    del waiting[task["name"]]
                    skipped = self._skip(task, f"{name}.{task['name']}", done, scope, fail_fast=fail_fast)
                    if skipped is not None:
                        done[task["name"]] = skipped
                        continue
                    self._book.add_child(name, f"{name}.{task['name']}")
                    future = pool.submit(self._task, task, f"{name}.{task['name']}", done.copy(), scope)
                    running[future] = task["name"]
                for future in cf.wait(running, timeout=0.2, return_when=cf.FIRST_COMPLETED).done:
                    done[running.pop(future)] = future.result()
        bad = [node for node in done.values() if node["phase"] in FAILED]
        message = f"{bad[0]['displayName']}: {bad[0].get('message', '')}" if bad else ""
        return self._book.update(name, phase="Failed" if bad else "Succeeded", message=message)

    def _ready(self, waiting: Mapping[str, Any], done: Mapping[str, Node]) -> list[dict[str, Any]]:
        return [task for task in waiting.values() if tasks_in(depends_of(task)) <= done.keys()]

    def _skip(
        self, task: Mapping[str, Any], name: str, done: Mapping[str, Node], scope: Mapping[str, str], *, fail_fast: bool
    ) -> Node | None:
        """Return the node of a task that does not run, None when it does."""
        if self._stop.is_set():
            return self._book.update(name, type="Skipped", phase="Omitted", message="the run was stopped")
        before = tasks_in(depends_of(task))
        elsewhere = any(node["phase"] in FAILED for n, node in done.items() if n not in before)
        try:
            met = depends_met(depends_of(task), {n: node["phase"] for n, node in done.items()})
            if not met or (fail_fast and elsewhere):
                return self._book.update(name, type="Skipped", phase="Omitted", message="depends condition not met")
            if "when" in task and not when_holds(condition := fill(task["when"], {**scope, **_task_scope(done)})):
                return self._book.update(
                    name, type="Skipped", phase="Skipped", message=f"when '{condition}' evaluated false"
                )
        except (UnresolvedError, ExpressionError) as error:
            return self._book.update(name, type="Skipped", phase="Error", message=str(error))
        return None

    def _task(self, task: Mapping[str, Any], name: str, done: Mapping[str, Node], scope: Mapping[str, str]) -> Node:
        try:
            arguments = parameters(fill(task.get("arguments"), {**scope, **_task_scope(done)}))
            return self._template(task["template"], name, scope, arguments, self._stop)
        except UnresolvedError as error:
            return self._book.update(name, type="Skipped", phase="Error", message=str(error))
        except Exception as error:  # a fault of the engine's own fails the task: the exit handler must run
            return self._book.update(name, phase="Error", message=f"{type(error).__name__}: {error}")

    # Templates

    def _template(
        self,
        template_name: str,
        name: str,
        scope: Mapping[str, str],
        arguments: Mapping[str, str],
        stop: threading.Event,
    ) -> Node:
        template = find_template(self._workflow, template_name)
        inputs = {**parameters(template.get("inputs")), **arguments}
        inner = {**scope, **{f"inputs.parameters.{key}": value for key, value in inputs.items()}}
        if "dag" in template:
            return self._dag(template, name, inner)
        if "retryStrategy" not in template:
            return self._attempt(template, name, {**inner, "retries": "0"}, stop)
        return self._retried(template, name, inner, stop)

    def _retried(self, template: Mapping[str, Any], name: str, scope: Mapping[str, str], stop: threading.Event) -> Node:
        strategy = template["retryStrategy"]
        self._book.update(name, type="Retry", phase="Running", templateName=template["name"])
        limit, backoff, attempt = int(strategy.get("limit", sys.maxsize)), strategy.get("backoff") or {}, 0
        began = time.monotonic()
        while True:
            child = f"{name}({attempt})"
            self._book.add_child(name, child)
            node = self._attempt(template, child, {**scope, "retries": str(attempt)}, stop, nodeFlag={"retried": True})
            if node["phase"] == "Succeeded" or attempt >= limit or stop.is_set() or not _retry(strategy, node):
                break
            pause = seconds(backoff.get("duration"), 0.0) * float(backoff.get("factor") or 1) ** attempt
            pause = min(pause, seconds(backoff.get("cap"), pause))
            over = seconds(backoff.get("maxDuration"), math.inf)  # since the first attempt began
            if time.monotonic() - began + pause > over:
                break
            self._book.update(
                name, message=f"attempt {attempt + 1} failed, next in {pause:g} s: {node.get('message', '')}"
            )
            if stop.wait(pause):
                break
            attempt += 1
        kept = {key: node[key] for key in ("outputs", "progress") if key in node}
        return self._book.update(name, phase=node["phase"], message=node.get("message", ""), **kept)

    def _attempt(
        self,
        template: Mapping[str, Any],
        name: str,
        scope: Mapping[str, str],
        stop: threading.Event,
        **flags: Any,  # noqa: ANN401
    ) -> Node:
        common = {"type": "Pod", "templateName": template["name"], **flags}
        try:
            filled = fill(copy.deepcopy(dict(template)), scope)
        except UnresolvedError as error:
            return self._book.update(name, phase="Error", message=str(error), **common)
        self._book.update(name, phase="Running", progress="0/1", **common)
        outcome = self._contain(filled, name, stop)
        if outcome.exit_code:
            phase = "Failed" if outcome.could_start else "Error"
            said = f"main: Error (exit code {outcome.exit_code})" + (f": {outcome.message}" if outcome.message else "")
            return self._book.update(name, phase=phase, message=said, outputs={"exitCode": str(outcome.exit_code)})
        try:
            outputs = {"exitCode": "0", "parameters": read_outputs(filled)}
        except OSError as error:
            return self._book.update(name, phase="Error", message=f"failed to save outputs: {error}")
        total = str(self._book.node(name).get("progress", "0/1")).partition("/")[2]
        return self._book.update(name, phase="Succeeded", progress=f"{total}/{total}", outputs=outputs)

    def _contain(self, filled: Mapping[str, Any], name: str, stop: threading.Event) -> Outcome:
        task = name.removeprefix(f"{self._name}.").partition("(")[0]
        try:
            return run_container(
                filled,
                self._folder / node_id(self._name, name),
                self._logs / f"{'release' if task == 'onExit' else task}.log",
                deadline_seconds=seconds(filled.get("activeDeadlineSeconds"), 0.0) or None,
                grace_seconds=grace_seconds(filled),
                stop=stop,
                on_progress=lambda text: self._book.update(name, progress=text),
            )
        except OSError as error:  # the disk is full, say: the exit handler must run all the same
            explained = explain_os_error(error)
            if explained is None:
                raise
            said = f"{explained.reason}: {explained.message} Fix: {explained.fix}"
            return Outcome(explained.exit_code, said, could_start=False)


def _task_scope(done: Mapping[str, Node]) -> dict[str, str]:
    scope = {f"tasks.{name}.status": str(node["phase"]) for name, node in done.items()}
    for name, node in done.items():
        for parameter in node.get("outputs", {}).get("parameters", ()):
            scope[f"tasks.{name}.outputs.parameters.{parameter['name']}"] = parameter["value"]
    return scope


def _retry(strategy: Mapping[str, Any], node: Node) -> bool:
    """Whether the strategy wants another attempt; with an expression the default policy is Always (Argo 3.5)."""
    policy = strategy.get("retryPolicy") or ("Always" if "expression" in strategy else "OnFailure")
    wanted = {"Always": FAILED, "OnFailure": ("Failed",), "OnError": ("Error",), "OnTransientError": ()}[policy]
    if node["phase"] not in wanted:
        return False
    names = {
        "lastRetry.status": node["phase"],
        "lastRetry.exitCode": node.get("outputs", {}).get("exitCode", "-1"),
        "lastRetry.message": node.get("message", ""),
        "lastRetry.duration": 0,
    }
    return bool(evaluate(strategy["expression"], names)) if "expression" in strategy else True
