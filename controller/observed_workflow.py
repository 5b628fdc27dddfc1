"""A Workflow as it is observed: its nodes read wherever Argo has put them, and only what we need of it kept.

``status.nodes`` may be compressed (``compressedNodes``: gzip, or zstd or brotli since Argo 4.1) or offloaded to a
database that only Argo's server reads (``offloadNodeStatusVersion``): then the phase of the whole is all there is.
"""

import base64
import gzip
from typing import Any

import orjson

from controller.kube_api import Object
from controller.observed_steps import ENDED
from pipelines.nodes import Node, node_id

_KEPT_OF_NODE = (
    "name", "type", "phase", "message", "progress", "startedAt", "finishedAt", "children", "nodeFlag",
    "taskResultSynced", "templateName",
)  # fmt: skip
_KEPT_OF_STATUS = ("phase", "startedAt", "finishedAt", "message", "progress", "offloadNodeStatusVersion")
_KEPT_OF_METADATA = (
    "name", "namespace", "uid", "resourceVersion", "creationTimestamp", "deletionTimestamp", "labels",
    "ownerReferences",
)  # fmt: skip


def pruned(workflow: Object) -> Object:
    """Return what is kept of a Workflow: who it is, its tasks' names, its status without what nobody reads."""
    spec, status = workflow.get("spec") or {}, workflow.get("status") or {}
    tasks = [task["name"] for t in spec.get("templates") or () for task in (t.get("dag") or {}).get("tasks") or ()]
    kept = {key: status[key] for key in _KEPT_OF_STATUS if status.get(key)}
    nodes = {key: _node(node) for key, node in nodes_of(status).items()}
    return {
        "metadata": {k: v for k, v in workflow["metadata"].items() if k in _KEPT_OF_METADATA},
        "spec": {
            "templates": [{"dag": {"tasks": [{"name": name} for name in tasks]}}],
            "onExit": spec.get("onExit", ""),
            "shutdown": spec.get("shutdown", ""),
        },
        "status": {**kept, "nodes": nodes},
    }


def _node(node: Node) -> Node:
    kept = {key: node[key] for key in _KEPT_OF_NODE if node.get(key) not in (None, "")}
    outputs = (node.get("outputs") or {}).get("parameters")
    return {**kept, "outputs": {"parameters": outputs}} if outputs else kept


def nodes_of(status: dict[str, Any]) -> dict[str, Node]:
    """Return the nodes by their ids, none where they cannot be read here."""
    if status.get("nodes"):
        return dict(status["nodes"])
    packed = status.get("compressedNodes")
    if not packed:
        return {}
    try:
        found = orjson.loads(_unpacked(base64.b64decode(packed)))
    except Exception:  # each packer has errors of its own, and a status that cannot be read is no reason to stop
        return {}
    return dict(found) if isinstance(found, dict) else {}


def _unpacked(packed: bytes) -> bytes:
    if packed[:2] == b"\x1f\x8b":
        return gzip.decompress(packed)
    if packed[:4] == b"\x28\xb5\x2f\xfd":
        import zstandard

        return zstandard.ZstdDecompressor().decompressobj().decompress(packed)
    import brotli

    return bytes(brotli.decompress(packed))


def has_ended(workflow: Object) -> bool:
    """Whether Argo is done with it."""
    return (workflow.get("status") or {}).get("phase") in ENDED


def is_unreadable(workflow: Object) -> bool:
    """Whether its nodes lie where only Argo's server can read them."""
    status = workflow.get("status") or {}
    return bool(status.get("offloadNodeStatusVersion")) and not status.get("nodes")


def pod_of(workflow: Object, task: str) -> str:
    """Return the name of the pod that runs a task now, empty when none does.

    Argo's naming since 3.4: ``<workflow>-<template>-<hash of the node's name>``.
    """
    name = workflow["metadata"]["name"]
    nodes = workflow["status"]["nodes"]
    node = nodes.get(node_id(name, f"{name}.{task}"))
    if node is None or node.get("phase") != "Running":
        return ""
    tries = [nodes[c] for c in node.get("children", ()) if nodes.get(c, {}).get("nodeFlag", {}).get("retried")]
    newest = tries[-1] if tries else node
    if newest.get("phase") != "Running" or newest.get("type") != "Pod":
        return ""
    template = newest.get("templateName") or task
    digits = node_id(name, newest["name"]).rpartition("-")[2]
    return f"{name}-{template}"[: 253 - 1 - len(digits)] + f"-{digits}"
