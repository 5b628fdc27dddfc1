"""A node from Karpenter: the NodeClaim that is asked for, and how far it has come.  Pure.

As KAITO makes it (labels, taint, requirements, storage, node class), so that the same node classes and policies serve.
``karpenter.sh/v1``, https://karpenter.sh/docs/concepts/nodeclaims/.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from presets.node_request import NodeAttempt, NodeRequest
from presets.provisioners import Cloud
from steps.contract import (
    NAMESPACE_LABEL,
    NODE_LABELS,
    OWNER_LABEL,
    OWNER_NAMESPACE_LABEL,
    RUN_LABEL,
    WORKSPACE_LABEL,
    WorkspaceRef,
)
from steps.node_refusals import Refusal, classify

API_VERSION = "karpenter.sh/v1"
CLAIMS = "/apis/karpenter.sh/v1/nodeclaims"
NODE_CLASSES: Mapping[Cloud, tuple[str, str]] = {
    "azure": ("kaito.sh", "KaitoNodeClass"),
    "nap": ("karpenter.azure.com", "AKSNodeClass"),
    "aws": ("karpenter.k8s.aws", "EC2NodeClass"),
}
NODE_POOL = {"karpenter.sh/nodepool": "kaito"}
TAINT = {"key": "sku", "value": "gpu", "effect": "NoSchedule"}  # only pods that tolerate it come to a GPU node
STAGES = ("Launched", "Registered", "Initialized", "Ready")
GPU = "nvidia.com/gpu"
WAITING = ("AwaitingReconciliation", "NodeNotFound", "NodeNotReady", "Unknown", "")


@dataclass(frozen=True, slots=True)
class Standing:
    """How far a node is."""

    stage: str  # the first that has not been reached; empty: all have been
    said: str = ""  # what is said of that stage
    refusal: Refusal | None = None  # it will not come


def node_name(run: str, workspace: WorkspaceRef, attempt: int) -> str:
    """Return the name of a run's node at an attempt, counted from 0; the same run has the same.

    Eleven characters, ``^[a-z][a-z0-9]{0,11}$``: agent pools of AKS have the name of their claim.
    """
    return f"{name_prefix(run, workspace)}{attempt:x}"


def name_prefix(run: str, workspace: WorkspaceRef) -> str:
    """Return what the names of a run's nodes begin with."""
    text = "\0".join((workspace.uid, workspace.namespace, workspace.name, run))
    return f"kf{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def workspace_labels(workspace: WorkspaceRef) -> dict[str, str]:
    """Return the labels that say whose a node is; what has none of them was given by others and is never touched."""
    return {**NODE_LABELS, OWNER_LABEL: workspace.name, OWNER_NAMESPACE_LABEL: workspace.namespace}


def own_labels(run: str, workspace: WorkspaceRef) -> dict[str, str]:
    """Return the labels that say of which run a node is."""
    return {**workspace_labels(workspace), RUN_LABEL: run}


def node_labels(request: NodeRequest, labels: Mapping[str, str]) -> dict[str, str]:
    """Return all labels of a node that is made: those that the Workspace asks for, and ``labels``."""
    return {**request.labels, **labels}


def _kaitos(labels: Mapping[str, str]) -> dict[str, str]:
    """Return the labels that KAITO gives its claims."""
    workspace, namespace = labels.get(OWNER_LABEL, ""), labels.get(OWNER_NAMESPACE_LABEL, "")
    return {**NODE_POOL, WORKSPACE_LABEL: workspace, NAMESPACE_LABEL: namespace}


def node_claim(request: NodeRequest, attempt: NodeAttempt, name: str, labels: Mapping[str, str]) -> dict[str, Any]:
    """Return the NodeClaim of one attempt."""
    cloud = request.placement.cloud
    group, kind = NODE_CLASSES[cloud]
    wanted = {
        **NODE_POOL,
        "node.kubernetes.io/instance-type": attempt.instance_type,
        "kubernetes.io/os": "linux",
        "karpenter.sh/capacity-type": "spot" if attempt.spot else "on-demand",
        **({"karpenter.azure.com/sku-name": attempt.instance_type} if cloud != "aws" else {}),
        **({"topology.kubernetes.io/zone": attempt.zone} if attempt.zone else {}),
    }
    requirements = [{"key": key, "operator": "In", "values": [value]} for key, value in wanted.items()]
    if cloud == "aws":
        requirements.append({"key": "karpenter.k8s.aws/instance-gpu-count", "operator": "Gt", "values": ["0"]})
    return {
        "apiVersion": API_VERSION,
        "kind": "NodeClaim",
        "metadata": {
            "name": name,
            "labels": {**_kaitos(labels), **node_labels(request, labels)},
            "annotations": {"karpenter.sh/do-not-disrupt": "true", "kaito.sh/node-image-family": "ubuntu"},
        },
        "spec": {
            "nodeClassRef": {"group": group, "kind": kind, "name": "default"},
            "requirements": requirements,
            "taints": [dict(TAINT)],
            "resources": {"requests": {"storage": f"{request.disk_gib}Gi"}},
            "expireAfter": "Never",  # it is given back by the run
        },
    }


def standing(claim: Mapping[str, Any], node: Mapping[str, Any] | None, gpus: int) -> Standing:
    """Return how far the claim and its node are."""
    conditions = {c.get("type"): c for c in (claim.get("status") or {}).get("conditions") or ()}
    for stage in STAGES:
        condition = conditions.get(stage) or {}
        if condition.get("status") == "True":
            continue
        reason, message = str(condition.get("reason") or ""), str(condition.get("message") or "")
        said = " ".join(filter(None, (reason if reason not in WAITING else "", message)))
        known = classify(reason, message) if reason not in WAITING else None
        return Standing(stage, said, known if stage == "Launched" and known and not _passes(known) else None)
    return node_standing(node, gpus)


def node_standing(node: Mapping[str, Any] | None, gpus: int) -> Standing:
    """Return how far a node itself is: Ready, and its GPUs announced by the device plugin."""
    if node is None:
        return Standing("Ready", "the node is not in the cluster")
    status = node.get("status") or {}
    ready = any(c.get("type") == "Ready" and c.get("status") == "True" for c in status.get("conditions") or ())
    if not ready:
        return Standing("Ready", "the node is not ready")
    have = int(str((status.get("allocatable") or {}).get(GPU, "0")))
    return Standing("" if have >= gpus else "GPUs", f"{have} of {gpus} {GPU} allocatable")


def _passes(refusal: Refusal) -> bool:
    """Whether Karpenter's own next try may do: the boot of a machine, say."""
    return refusal.reason in ("NodeBootFailed", "NodeCanceled")


def too_late(standing: Standing, name: str, seconds: int) -> Refusal:
    """Return why a node that did not come in time is given up."""
    if standing.stage == "GPUs":
        return Refusal(
            "GpuPluginMissing",
            f"The node of {name} is ready and has {standing.said} after {seconds} s.",
            "Install the NVIDIA device plugin or GPU operator, with a toleration of sku=gpu:NoSchedule.",
            elsewhere=False,
        )
    known = classify("", standing.said)
    if known is not None:
        return known
    said = f": {standing.said}" if standing.said else ""
    return Refusal(
        "NodeTimeout",
        f"{name} was not {standing.stage} after {seconds} s{said}.",
        "Look at kubectl describe nodeclaim, and at the logs of the provisioner.",
        elsewhere=True,
    )
