"""Does a run hold a node that it will not give back, or wait for one that is gone?  Pure; read off Argo's nodes.

Argo runs no exit handler of a Workflow that is terminated (``argo terminate``) or deleted, and tries a pod again whose
node was reclaimed, on a node of the same name that nobody makes again.
"""

import re
from collections.abc import Mapping
from typing import Any

from controller.kube_api import Object
from controller.observed_workflow import is_unreadable
from pipelines.names import CLEANUP_LABEL, end_label
from pipelines.nodes import Node, node_id

OLD_TAINT = ", that the pod didn't tolerate"  # before Kubernetes 1.24
SAYS_NOTHING = re.compile("untolerated taint|had taint|were unschedulable")
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
    """Return since when a training waits for a node that was lost under it; empty where none does."""
    tries = _tries(run)
    ran = [t for t in tries[:-1] if not _finds_no_node(t)]  # whatever it says of its end: a drain is a SIGTERM
    return _waiting_since(tries) if ran else ""


def unfound_node_since(run: Object) -> str:
    """Return since when a training that never ran waits, where its node was made and none is there that is meant.

    A node that is there and takes it not (no room, another zone than its volume's) is not one that went away.
    """
    made = _node(run, "provision").get("phase") == "Succeeded"
    tries = _tries(run)
    return _waiting_since(tries) if made and tries and _matches_none(tries[-1].get("message", "")) else ""


def is_made_for(release: Object, ended: str, *, or_later: bool = False) -> bool:
    """Whether a cleanup was made for this end of its run, both by Argo's clock; ``or_later``: or for one after it."""
    label = (release["metadata"].get("labels") or {}).get(CLEANUP_LABEL)
    if label is None:  # of an earlier kaiflow
        return bool(release["metadata"]["creationTimestamp"] >= ended)
    return bool(label == end_label(ended) or (or_later and label > end_label(ended)))


def _tries(run: Object) -> list[Node]:
    nodes = run["status"].get("nodes") or {}
    children = (nodes.get(key, {}) for key in _node(run, "tune").get("children", ()))
    return [child for child in children if child.get("nodeFlag", {}).get("retried")]


def _waiting_since(tries: list[Node]) -> str:
    waits = tries[-1].get("phase") == "Pending" and _finds_no_node(tries[-1])
    return str(tries[-1].get("startedAt", "")) if waits else ""


def _finds_no_node(pod: Node) -> bool:
    return "Unschedulable" in pod.get("message", "")


def _matches_none(message: str) -> bool:
    """Whether no node carries the labels that the pod asks for, by the scheduler's words for each.

    It looks at cordons and taints first, and says nothing of the labels of nodes that have them.
    """
    words = message.partition("preemption:")[0].partition("are available:")[2].replace(OLD_TAINT, "").rstrip(". ")
    reasons = [reason for reason in words.split(", ") if "pressure" in reason or not SAYS_NOTHING.search(reason)]
    return bool(reasons) and all("didn't match Pod's node affinity" in reason for reason in reasons)


def _node(run: Object, task: str) -> Node:
    name = run["metadata"]["name"]
    return dict((run["status"].get("nodes") or {}).get(node_id(name, f"{name}.{task}"), {}))
