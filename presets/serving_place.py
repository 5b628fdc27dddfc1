"""How the server of a tuned model is placed on a cluster: what the deploy step is told."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

# Taints of GPU nodes: KAITO's, that of Azure's spot nodes, that of the NVIDIA device plugin's users.
GPU_TOLERATIONS: tuple[Mapping[str, str], ...] = (
    {"key": "sku", "operator": "Equal", "value": "gpu", "effect": "NoSchedule"},
    {
        "key": "kubernetes.azure.com/scalesetpriority", "operator": "Equal", "value": "spot", "effect": "NoSchedule",
    },
    {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"},
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Mount:
    """A volume of the server's pod."""

    name: str
    source: Mapping[str, Any]  # as in a pod
    path: str


@dataclass(frozen=True, slots=True)
class ServingPlace:
    """Where and with what the server runs."""

    image: str
    account: str = ""  # by which the pod signs in to the registry, where an identity is bound to it
    pull_policy: str | None = None  # of the image; None: Kubernetes' own
    gpus: int = 0  # 0: on a CPU
    node_labels: Mapping[str, str] = field(default_factory=dict)
    on_own_node: bool = False  # on the node that the run has made
    registry_secret: str | None = None
    pull_secrets: tuple[str, ...] = ()  # for the server's own image
    mounts: tuple[Mount, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    pod_labels: Mapping[str, str] = field(default_factory=dict)
    weights_secrets: tuple[str, ...] = ()  # for the image of the weights, where they come from one
    access_secret: str | None = None  # with the token for the weights, where they come from the hub
    cpu: str = "1"
    memory: str = "4Gi"
