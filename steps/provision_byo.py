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
        wanted = attempt.instance_type
        nodes = self._cluster.list(NODES, self._request.labels)
        refusal = refused(nodes, self._request, wanted)
        if refusal is not None:
            raise RefusedError(refusal)
        fitting = [node for node in nodes if not list(_lacks(node, self._request, wanted))]
        best = max(fitting, key=lambda n: (_name(n) in self._request.preferred_nodes, _gpus(n), _name(n)))
        return _name(best)

    def give_back(self, name: str) -> None:
        """Nothing was taken."""

    def own(self, labels: Mapping[str, str]) -> list[OwnNode]:  # noqa: ARG002
        """Nothing was made."""
        return []


def refused(nodes: Iterable[Mapping[str, Any]], request: NodeRequest, instance_type: str) -> Refusal | None:
    """Return why none of the nodes with the labels serves, which lacks what; None where one does."""
    nodes = sorted(nodes, key=_name)
    selector = ", ".join(f"{key}={value}" for key, value in sorted(request.labels.items())) or "any"
    if not nodes:
        return Refusal(
            "NoNodeMatches",
            f"No node has the labels {selector}.",
            "Label a GPU node so, or change labelSelector.",
            False,
        )
    lacking = {_name(node): list(_lacks(node, request, instance_type)) for node in nodes}
    serving = [node for node in nodes if not lacking[_name(node)]]
    if not serving:
        each = "; ".join(f"{name}: {', '.join(what)}" for name, what in lacking.items())
        return Refusal(
            "NodesUnfit",
            f"None of the nodes with {selector} serves: {each}.",
            "Mend one of them, or name others.",
            False,
        )
    kinds = {str((node["metadata"].get("labels") or {}).get(PRODUCT)) for node in serving}
    if len(kinds) > 1:
        return Refusal(
            "NodesDiffer",
            f"The nodes with {selector} have GPUs of several kinds: {', '.join(sorted(kinds))}.",
            "Name one kind in labelSelector, such as nvidia.com/gpu.product.",
            False,
        )
    return None


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
