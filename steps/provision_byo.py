"""Nodes that others have given: looked for, checked, never made, never touched."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from presets.node_request import NodeAttempt, NodeRequest
from steps.cluster import Cluster
from steps.node_claims import GPU, node_standing
from steps.node_provisioner import OwnNode, RefusedError, Tell
from steps.node_refusals import Refusal

NODES = "/api/v1/nodes"
INSTANCE_TYPE = "node.kubernetes.io/instance-type"
PRODUCT = "nvidia.com/gpu.product"  # of NVIDIA's GPU feature discovery


class GivenNodes:
    """A :class:`steps.node_provisioner.Provisioner` of nodes that are there already."""

    def __init__(self, request: NodeRequest, cluster: Cluster) -> None:
        self._request, self._cluster = request, cluster

    def take(self, attempt: NodeAttempt, name: str, labels: Mapping[str, str], tell: Tell) -> str:  # noqa: ARG002
        """Return the node that serves best: a preferred one, else the one with the most GPUs."""
        nodes = self._cluster.list(NODES, self._request.labels)
        serving = _serving(nodes, self._request, attempt.instance_type)
        return _name(max(serving, key=lambda n: (_name(n) in self._request.preferred_nodes, _gpus(n), _name(n))))

    def give_back(self, name: str) -> None:
        """Nothing was taken."""

    def own(self, labels: Mapping[str, str]) -> list[OwnNode]:  # noqa: ARG002
        """Nothing was made."""
        return []


def _serving(nodes: Iterable[Mapping[str, Any]], request: NodeRequest, instance_type: str) -> list[Mapping[str, Any]]:
    """Return the nodes with the labels that serve, at least one, their GPUs of one kind.

    Raises:
        RefusedError: there is none, and which lacks what, or they are of several kinds.
    """
    selector = ", ".join(f"{key}={value}" for key, value in sorted(request.labels.items())) or "any"
    lacking = [(node, list(_lacks(node, request, instance_type))) for node in sorted(nodes, key=_name)]
    serving = [node for node, what in lacking if not what]
    if not lacking:
        raise _refused(
            "NoNodeMatches", f"No node has the labels {selector}.", "Label a GPU node so, or change labelSelector."
        )
    if not serving:
        each = "; ".join(f"{_name(node)}: {', '.join(what)}" for node, what in lacking)
        raise _refused(
            "NodesUnfit", f"None of the nodes with {selector} serves: {each}.", "Mend one of them, or name others."
        )
    kinds = {str((node["metadata"].get("labels") or {}).get(PRODUCT)) for node in serving}
    if len(kinds) > 1:
        raise _refused(
            "NodesDiffer",
            f"The nodes with {selector} have GPUs of several kinds: {', '.join(sorted(kinds))}.",
            "Name one kind in labelSelector, such as nvidia.com/gpu.product.",
        )
    return serving


def _refused(reason: str, message: str, fix: str) -> RefusedError:
    return RefusedError(Refusal(reason, message, fix, elsewhere=False))


def _lacks(node: Mapping[str, Any], request: NodeRequest, instance_type: str) -> Iterator[str]:
    labels = node["metadata"].get("labels") or {}
    kind = str(labels.get(INSTANCE_TYPE, ""))
    if instance_type and kind.lower() != instance_type.lower():
        yield f"its instance type is {kind or 'not told'}"
    if (node.get("spec") or {}).get("unschedulable"):
        yield "it is cordoned"
    found = node_standing(node, request.gpus)
    if found.stage:
        yield found.said


def _gpus(node: Mapping[str, Any]) -> int:
    return int(str(((node.get("status") or {}).get("allocatable") or {}).get(GPU, "0")))


def _name(node: Mapping[str, Any]) -> str:
    return str(node["metadata"]["name"])
