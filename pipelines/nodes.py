"""``status.nodes`` of a Workflow: names, ids and phases as Argo 4.1 writes them.

The local engine writes them and the mirror reads them, from both engines alike.
"""

import copy
import functools
import threading
from collections.abc import Callable
from typing import Any

from steps.contract import timestamp

Node = dict[str, Any]
DONE = ("Succeeded", "Failed", "Error", "Skipped", "Omitted")


@functools.lru_cache(maxsize=1 << 14)  # a controller asks for those of a thousand runs again and again
def node_id(workflow: str, name: str) -> str:
    """Return Argo's id of a node: ``<workflow>-<32-bit FNV-1a of the node's name>``; the root's is the name itself."""
    if name == workflow:
        return workflow
    value = 0x811C9DC5
    for byte in name.encode():
        value = ((value ^ byte) * 0x01000193) & 0xFFFFFFFF
    return f"{workflow}-{value}"


class StatusBook:
    """The status of one running Workflow; every change is told to ``on_change``, from any thread."""

    def __init__(self, workflow: str, on_change: Callable[[], None]) -> None:
        self._workflow = workflow
        self._on_change = on_change
        self._lock = threading.RLock()
        self._status: dict[str, Any] = {"phase": "Running", "startedAt": timestamp(), "progress": "0/0", "nodes": {}}

    def snapshot(self) -> dict[str, Any]:
        """Return a copy of the status."""
        with self._lock:
            return copy.deepcopy(self._status)

    def node(self, name: str) -> Node:
        """Return a copy of one node; empty when there is none."""
        with self._lock:
            return copy.deepcopy(self._status["nodes"].get(node_id(self._workflow, name), {}))

    def update(self, name: str, **fields: Any) -> Node:  # noqa: ANN401  (fields of Argo's node)
        """Create or change a node; a terminal phase stamps the end."""
        with self._lock:
            key = node_id(self._workflow, name)
            nodes = self._status["nodes"]
            known = nodes.get(key)
            if known is not None and all(known.get(k) == v for k, v in fields.items()):
                return copy.deepcopy(known)
            display = name.removeprefix(f"{self._workflow}.")
            fresh = {"id": key, "name": name, "displayName": display, "startedAt": timestamp()}
            node: Node = nodes.setdefault(key, fresh)
            node.update(fields)
            if fields.get("phase") in DONE and node.get("finishedAt") is None:
                node["finishedAt"] = timestamp()
            self._status["progress"] = self._total()
            result = copy.deepcopy(node)
        self._on_change()
        return result

    def add_child(self, parent: str, child: str) -> None:
        """Record that ``child`` belongs to ``parent``."""
        with self._lock:
            node = self._status["nodes"][node_id(self._workflow, parent)]
            node.setdefault("children", []).append(node_id(self._workflow, child))

    def finish(self, phase: str, message: str) -> None:
        """Close the Workflow."""
        with self._lock:
            self._status |= {"phase": phase, "finishedAt": timestamp(), "message": message}
        self._on_change()

    def _total(self) -> str:
        """Pods done of pods known, as Argo sums progress."""
        pods = [n for n in self._status["nodes"].values() if n.get("type") == "Pod"]
        return f"{sum(n.get('phase') == 'Succeeded' for n in pods)}/{len(pods)}"
