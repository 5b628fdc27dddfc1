"""The steps of a Workflow as the Workspace shows them, read from Argo's nodes.  Pure.

Nodes are found by the id that Argo derives of their names (never by display name, which an annotation rewrites). A
Retry node says Running while its newest attempt waits for a node: the attempt is shown. Hooks are no attempts.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pipelines.nodes import Node, node_id

STEP_ORDER = ("fetch", "provision", "weights", "tune", "push", "deploy", "release")
FAILED = ("Failed", "Error")
STOPPED = re.compile(
    "[Ss]topped with strategy|[Ss]hutdown with strategy|[Tt]erminate"
)  # by a person, whatever it was at
ENDED = ("Succeeded", *FAILED)


@dataclass(frozen=True, slots=True)
class StepStatus:
    """One step as the Workspace shows it."""

    name: str
    phase: str
    started_at: str | None
    finished_at: str | None
    progress: str
    message: str
    outputs: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the entry of ``status.steps``."""
        body = {
            "name": self.name, "phase": self.phase, "startedAt": self.started_at, "finishedAt": self.finished_at,
            "progress": self.progress, "message": self.message,
        }  # fmt: skip
        if self.outputs.get("cached") == "true":
            body["reused"] = True  # type: ignore[assignment]
        return {key: value for key, value in body.items() if value not in (None, "")}


def read_steps(workflow: Mapping[str, Any]) -> list[StepStatus]:
    """Return the steps of the Workflow's DAG in the order of the pipeline, the exit handler last."""
    name, spec = workflow["metadata"]["name"], workflow["spec"]
    nodes: Mapping[str, Node] = (workflow.get("status") or {}).get("nodes") or {}
    tasks = [task["name"] for t in spec["templates"] for task in t.get("dag", {}).get("tasks", ())]
    known = sorted(tasks, key=lambda task: STEP_ORDER.index(task) if task in STEP_ORDER else len(STEP_ORDER))
    ended = (workflow.get("status") or {}).get("phase") in ENDED
    ids = {task: node_id(name, f"{name}.{task}") for task in known}
    last, of_exit = spec.get("onExit"), node_id(name, f"{name}.onExit")
    if last and (last not in ids or _tells_more(nodes.get(of_exit, {}), nodes.get(ids[last], {}))):
        ids[last] = of_exit
    return [_step(task, key, nodes, ended=ended) for task, key in ids.items()]


def _tells_more(of_exit: Node, task: Node) -> bool:
    """Whether of a step that is a task and the exit handler too the latter is what has happened."""
    return bool(of_exit) and (task.get("phase") not in ENDED or of_exit.get("phase") in FAILED)


def _step(name: str, key: str, nodes: Mapping[str, Node], *, ended: bool) -> StepStatus:
    node = nodes.get(key)
    if node is None:  # never reached; of a run whose nodes cannot be read nothing is known
        return StepStatus(name, "Omitted" if ended and nodes else "Pending", None, None, "", "")
    phase, message, progress = node.get("phase", "Pending"), node.get("message", ""), node.get("progress", "")
    attempts = [nodes[c] for c in node.get("children", ()) if nodes.get(c, {}).get("nodeFlag", {}).get("retried")]
    if attempts:
        newest = attempts[-1]
        progress = newest.get("progress", progress)
        if phase in FAILED and not STOPPED.search(message):  # Argo says of the Retry node that it is not tried again
            message = newest.get("message") or message
        if phase == "Running":  # a Retry node says Running while its newest attempt waits for a node
            phase = newest.get("phase", phase) if newest.get("phase") == "Pending" else phase
            message = message or newest.get("message", "")
    if phase == "Succeeded" and node.get("taskResultSynced") is False:
        phase = "Running"  # its outputs have not arrived yet
    outputs = {p["name"]: str(p.get("value", "")) for p in node.get("outputs", {}).get("parameters", ())}
    if phase == "Succeeded" and outputs.get(
        "steps"
    ):  # Argo says that all is done, of a training that a budget ended too
        progress = outputs["steps"]
    return StepStatus(name, phase, node.get("startedAt"), node.get("finishedAt"), progress, message, outputs)


def output(steps: Mapping[str, StepStatus], step: str, name: str) -> str:
    """Return an output of a step, empty while there is none."""
    return steps[step].outputs.get(name, "") if step in steps else ""
