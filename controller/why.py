"""``kaiflow why``: what keeps a Workspace from being done, in one screen; the remedy beside it."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from controller.failure import explain

GOOD_WHEN_FALSE = ("WorkspaceDeleting",)


def reasons(workspace: Mapping[str, Any], events: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield lines: the state, what has failed or waits with its remedy, refusals of nodes, warnings."""
    name, status = workspace["metadata"]["name"], workspace.get("status") or {}
    yield f"{name} is {status.get('state', 'Pending')}" + (
        f", at the step {status['step']}" if status.get("step") else ""
    )
    yield from shortened(status)
    yield from _steps(status)
    yield from _conditions(status)
    if attempt := status.get("provision", {}).get("attempt"):
        yield f"  node {attempt}: is asked for; {status['provision'].get('waitsFor', 'nothing is heard of it yet')}"
    for refused in status.get("provision", {}).get("refused", ()):
        yield f"  node {refused['attempt']}: {refused['reason']}: {refused['message']}"
    if not status:
        yield "  No controller has looked at it yet: is kaiflow installed, and does it watch this namespace?"
    for event in [e for e in events if e.get("type") == "Warning"][-5:]:
        yield f"  event {event['reason']}: {event['message']}"


def shortened(status: Mapping[str, Any]) -> Iterator[str]:
    """Yield that a budget ended the training, where it did."""
    tuned = any(step["name"] == "tune" and step["phase"] == "Succeeded" for step in status.get("steps", ()))
    done, _, total = str(status.get("training", {}).get("steps", "")).partition("/")
    if tuned and total and done != total:
        yield f"  its budget ended the training after {done} of {total} steps; a larger one goes on from there"


def _steps(status: Mapping[str, Any]) -> Iterator[str]:
    for step in status.get("steps", ()):
        message = step.get("message", "")
        if step["phase"] in ("Failed", "Error") or (step["phase"] == "Pending" and message):
            found = explain(step["name"], message)
            yield f"  {step['name']} {step['phase']}: {found.reason}: {found.message}"
            if found.fix:
                yield f"    {found.fix}"


def _conditions(status: Mapping[str, Any]) -> Iterator[str]:
    told = {step.get("message", "") for step in status.get("steps", ())}
    for condition in status.get("conditions", ()):
        waits = condition["status"] != "True" and condition["type"] not in ("Finished", *GOOD_WHEN_FALSE)
        if waits and condition["message"] not in told:
            yield f"  {condition['type']} {condition['status']}: {condition['reason']}: {condition['message']}"
