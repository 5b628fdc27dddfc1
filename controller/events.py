"""What is told of a Workspace as Kubernetes Events: one list of reasons, each with who should look.  Pure.

Told are changes between two statuses; the name of an Event follows from what it says, so that a controller that was
killed in between tells it once.
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from controller.failure import explain
from controller.kube_api import Object

LONGEST_MESSAGE = 1024
KINDS: Mapping[str, Literal["Normal", "Warning"]] = {
    "Planned": "Normal",
    "PlanRefused": "Warning",
    "RunStarted": "Normal",
    "RunStopping": "Normal",
    "RunSucceeded": "Normal",
    "RunFailed": "Warning",
    "RunDeleted": "Warning",
    "NothingNew": "Normal",
    "StepWaiting": "Warning",
    "Serving": "Normal",
    "ScheduleSet": "Normal",
    "ScheduleRemoved": "Normal",
    "ScheduleRefused": "Warning",
    "ArgoMissing": "Warning",
    "NodesMayRemain": "Warning",
    "NodeReleased": "Normal",
    "NodeLost": "Warning",
    "ReconcileFailed": "Warning",
}


@dataclass(frozen=True, slots=True)
class Told:
    """One Event."""

    reason: str
    message: str


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[Told]:
    """Yield what has happened between two statuses."""
    yield from _plan(before, after)
    yield from _runs(before, after)
    yield from _waiting(before, after)
    if after.get("endpoint") and after.get("endpoint") != before.get("endpoint"):
        yield Told("Serving", f"The tuned model answers at {after['endpoint']}.")


def _condition(status: Mapping[str, Any], kind: str) -> Mapping[str, Any]:
    return next((c for c in status.get("conditions", ()) if c["type"] == kind), {})


def _plan(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[Told]:
    was, now = _condition(before, "Planned"), _condition(after, "Planned")
    if now.get("message") != was.get("message"):
        good = now.get("status") == "True"
        yield Told("Planned" if good else "PlanRefused", str(now.get("message", "")))
    ended = _condition(after, "Finished")
    if ended.get("reason") == "RunDeleted" and _condition(before, "Finished").get("reason") != "RunDeleted":
        good = _condition(after, "WorkspaceSucceeded")  # of an earlier run, where one serves
        yield Told("RunDeleted", str((good if good.get("reason") == "RunDeleted" else ended).get("message", "")))


def _runs(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[Told]:
    was = {(run["name"], run.get("startedAt")): run["phase"] for run in before.get("runs", ())}
    for run in after.get("runs", ()):
        phase = run["phase"]
        if was.get((run["name"], run.get("startedAt"))) == phase:
            continue
        if run.get("reason") == "NothingNew":
            yield Told("NothingNew", f"{run['name']}: the data is what it was; nothing was trained.")
        elif phase == "Succeeded":
            yield Told("RunSucceeded", f"{run['name']} has succeeded. {_losses(run)}".strip())
        elif phase in ("Failed", "Error") and run.get("reason") != "RunDeleted":
            yield Told("RunFailed", f"{run['name']} has failed. {_why(after, run)}".strip())
        elif phase == "Running":
            yield Told("RunStarted", f"{run['name']} has begun.")


def _losses(run: Mapping[str, Any]) -> str:
    if "evalLoss" not in run:
        return ""
    return f"Held-out loss {run['baseEvalLoss']:.3f} (base), {run['evalLoss']:.3f} (tuned); gate {run.get('gate')}."


def _why(after: Mapping[str, Any], run: Mapping[str, Any]) -> str:
    if after.get("workflow") != run["name"]:
        return ""
    failed = [s for s in after.get("steps", ()) if s["phase"] in ("Failed", "Error")]
    if not failed:
        return ""
    why = explain(failed[0]["name"], failed[0].get("message", ""))
    return f"{why.step}: {why.reason}: {why.message} {why.fix}".strip()


def _waiting(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[Told]:
    was = {(c["type"], c["reason"]) for c in before.get("conditions", ())}
    told: set[str] = set()
    for kind in ("ResourceReady", "JobStarted", "InferenceReady", "WorkspaceSucceeded"):  # the last: of any other step
        now = _condition(after, kind)
        waits = now.get("reason") in ("Unschedulable", "ImagePullError", "ContainerStartError")
        if waits and (kind, now["reason"]) not in was and str(now["message"]) not in told:
            told.add(str(now["message"]))
            yield Told("StepWaiting", str(now["message"]))


def event_body(workspace: Object, told: Told, component: str, now: str) -> Object:
    """Return the Event about a Workspace."""
    metadata = workspace["metadata"]
    message = told.message[:LONGEST_MESSAGE]
    text = "\0".join((metadata["uid"], told.reason, message))
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {
            "name": f"{metadata['name'][:200]}.{hashlib.sha256(text.encode()).hexdigest()[:16]}",
            "namespace": metadata["namespace"],
        },
        "involvedObject": {
            "apiVersion": workspace.get("apiVersion", "kaito.sh/v1beta1"), "kind": "Workspace",
            "name": metadata["name"], "namespace": metadata["namespace"], "uid": metadata["uid"],
        },
        "reason": told.reason,
        "message": message,
        "type": KINDS[told.reason],
        "source": {"component": component},
        "firstTimestamp": now,
        "lastTimestamp": now,
        "count": 1,
    }  # fmt: skip
