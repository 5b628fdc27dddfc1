"""Which nodes has an unclean end left?  Those of ours whose run is over or gone, and that nothing needs."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from steps.cluster import Cluster
from steps.contract import NODE_LABELS, OWNER_LABEL, OWNER_NAMESPACE_LABEL, RUN_LABEL
from steps.node_keeping import needed_by_deployment
from steps.node_provisioner import OwnNode, Provisioner

OVER = ("Succeeded", "Failed", "Error")


@dataclass(frozen=True, slots=True)
class HeldNode:
    """A node of ours, and for what it is held."""

    node: OwnNode
    held_for: str  # what needs it; empty: nothing does
    phase: str  # of its run; Gone where its Workflow is no more

    @property
    def orphan(self) -> bool:
        """Whether nobody will give it back."""
        return not self.held_for and not self.node.leaving


def held_nodes(maker: Provisioner, cluster: Cluster) -> list[HeldNode]:
    """Return all nodes that runs of kaiflow have made, with what needs each."""
    return [_held(node, cluster) for node in sorted(maker.own(NODE_LABELS), key=lambda node: node.name)]


def _held(node: OwnNode, cluster: Cluster) -> HeldNode:
    namespace, run = node.labels.get(OWNER_NAMESPACE_LABEL, "default"), node.labels.get(RUN_LABEL, "")
    workflow = cluster.get(f"/apis/argoproj.io/v1alpha1/namespaces/{namespace}/workflows/{run}") if run else None
    phase = _phase(workflow)
    if phase not in (*OVER, "Gone"):
        return HeldNode(node, f"run {run}", phase)
    if needed_by_deployment(cluster, namespace, node.labels):
        return HeldNode(node, f"deployment of {node.labels.get(OWNER_LABEL, '')}", phase)
    return HeldNode(node, "", phase)


def _phase(workflow: Mapping[str, Any] | None) -> str:
    """Return the phase of a run; one that is over may still be about to release its nodes, but then it says Running."""
    if workflow is None:
        return "Gone"
    return str((workflow.get("status") or {}).get("phase") or "Pending")
