"""Does something still need a node?  Servers of the Workspace that are on it do."""

from collections.abc import Mapping
from typing import Any

from steps.cluster import Cluster
from steps.contract import OWNER_LABEL, RUN_LABEL, WORKSPACE_LABEL
from steps.serving_objects import COMPONENT


def deployments_path(namespace: str) -> str:
    """Return the API path of a namespace's Deployments."""
    return f"/apis/apps/v1/namespaces/{namespace}/deployments"


def needed_by_deployment(cluster: Cluster, namespace: str, labels: Mapping[str, str]) -> bool:
    """Whether servers of the Workspace are on the node that carries these labels, by the run's label.

    Those that answer count, wherever a newer template of the Deployment would have them: where its servers do not come
    up, those of the template before go on. Where none answers, the template's node is needed.
    """
    run, workspace = labels.get(RUN_LABEL, ""), {WORKSPACE_LABEL: labels.get(OWNER_LABEL, "")}
    deployments = cluster.list(deployments_path(namespace), workspace) if run else []
    if not deployments:
        return False
    servers = cluster.list(f"/api/v1/namespaces/{namespace}/pods", {**workspace, **COMPONENT})
    answering = [_run_of(pod["spec"]) for pod in servers if _answers(pod)]
    meant = [_run_of(d["spec"].get("template", {}).get("spec") or {}) for d in deployments]
    return run in (answering or meant)


def _run_of(pod_spec: Mapping[str, Any]) -> str:
    """Return the run whose node a pod is bound to, empty where it is bound to none."""
    return str((pod_spec.get("nodeSelector") or {}).get(RUN_LABEL, ""))


def _answers(pod: Mapping[str, Any]) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or ()
    ready = any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
    return ready and "deletionTimestamp" not in pod["metadata"]


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
