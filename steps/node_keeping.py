"""Does something still need a node?  A deployment of the Workspace that was placed on it does."""

from collections.abc import Mapping
from typing import Any

from steps.cluster import Cluster
from steps.contract import OWNER_LABEL, RUN_LABEL, WORKSPACE_LABEL


def deployments_path(namespace: str) -> str:
    """Return the API path of a namespace's Deployments."""
    return f"/apis/apps/v1/namespaces/{namespace}/deployments"


def needed_by_deployment(cluster: Cluster, namespace: str, labels: Mapping[str, str]) -> bool:
    """Whether a Deployment of the Workspace is bound to the node that carries these labels, by the run's label."""
    run = labels.get(RUN_LABEL, "")
    for deployment in cluster.list(deployments_path(namespace), {WORKSPACE_LABEL: labels.get(OWNER_LABEL, "")}):
        pod = (deployment.get("spec") or {}).get("template", {}).get("spec") or {}
        if run and (pod.get("nodeSelector") or {}).get(RUN_LABEL) == run:
            return True
    return False


def rolled_out_at(deployment: Mapping[str, Any] | None) -> str:
    """Return when the newest template had taken over, as Kubernetes writes time; empty where that is not told."""
    conditions = ((deployment or {}).get("status") or {}).get("conditions") or ()
    done = [c for c in conditions if c["type"] == "Progressing" and c.get("reason") == "NewReplicaSetAvailable"]
    return str(done[0].get("lastUpdateTime") or "") if done else ""


def is_rolled_out(deployment: Mapping[str, Any] | None) -> bool:
    """Whether all pods of a Deployment are those of its newest template, and ready."""
    if deployment is None:
        return False
    status, wanted = deployment.get("status") or {}, deployment["spec"].get("replicas", 1)
    counts = {int(status.get(name) or 0) for name in ("replicas", "updatedReplicas", "availableReplicas")}
    return counts == {wanted} and status.get("observedGeneration", 0) >= deployment["metadata"]["generation"]
