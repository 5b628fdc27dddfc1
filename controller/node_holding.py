"""Does a run hold a node that it will not give back, or wait for one that is gone?  Pure; read off Argo's nodes.

Argo runs no exit handler of a Workflow that is terminated (``argo terminate``) or deleted, and tries a pod again whose
node was reclaimed, on a node of the same name that nobody makes again.
"""

from collections.abc import Mapping
from typing import Any

from controller.kube_api import Object
from controller.observed_workflow import is_unreadable
from pipelines.names import CLEANUP_LABEL
from pipelines.nodes import Node, node_id

NEVER_BEGAN = ("", "Pending", "Skipped", "Omitted")


def holds_node(run: Object) -> bool:
    """Whether an ended run has asked for a node, and no release has succeeded since."""
    if is_unreadable(run):
        return False
    took = _node(run, "provision").get("phase", "") not in NEVER_BEGAN
    return took and not any(_node(run, name).get("phase") == "Succeeded" for name in ("release", "onExit"))


def asked_for_node(status: Mapping[str, Any]) -> bool:
    """Whether the run that a status tells of has asked for a node; where it names no steps, it may have."""
    phases = {step["name"]: step["phase"] for step in status.get("steps", ())}
    return not phases or phases.get("provision", "") not in NEVER_BEGAN


def lost_node_since(run: Object) -> str:
    """Return since when a training waits for a node that went away, under it or before it began; empty where none does.

    A node that is there and has no room is none that went away.
    """
    nodes = run["status"].get("nodes") or {}
    children = (nodes.get(key, {}) for key in _node(run, "tune").get("children", ()))
    tries = [child for child in children if child.get("nodeFlag", {}).get("retried")]
    ran = [t for t in tries[:-1] if not _finds_no_node(t)]  # whatever it says of its end: a drain is a SIGTERM
    waits = bool(tries) and tries[-1].get("phase") == "Pending" and _finds_no_node(tries[-1])
    was_there = bool(ran) or (
        waits and _node(run, "provision").get("phase") == "Succeeded" and _matches_none(tries[-1])
    )
    return str(tries[-1].get("startedAt", "")) if waits and was_there else ""


def made_for(release: Object) -> str | None:
    """Return which end of its run a cleanup was made for; no clocks are compared, of which each writer has its own."""
    return (release["metadata"].get("labels") or {}).get(CLEANUP_LABEL)


def _finds_no_node(pod: Node) -> bool:
    return "Unschedulable" in pod.get("message", "")


def _matches_none(pod: Node) -> bool:
    """Whether no node carries the labels that the pod asks for; the scheduler counts what each node lacks first."""
    message = pod.get("message", "")
    return "didn't match" in message and "Insufficient" not in message


def _node(run: Object, task: str) -> Node:
    name = run["metadata"]["name"]
    return dict((run["status"].get("nodes") or {}).get(node_id(name, f"{name}.{task}"), {}))
