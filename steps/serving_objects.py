"""The objects of a served model: Deployment, Service, and above one replica a PodDisruptionBudget.  Pure.

The adapter is named by digest in the pod template, so that another adapter is another ReplicaSet, which takes over
when it answers and not before (``maxUnavailable: 0``). Restricted pods: no root, no token, a read-only root.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from presets.serving_place import GPU_TOLERATIONS, ServingPlace
from steps.contract import MANAGED_BY, RUN_LABEL, WORKSPACE_LABEL, WorkspaceRef, owner_reference
from steps.docker_config import MOUNTED_CONFIG, PULL_SECRETS
from steps.node_claims import GPU
from steps.serving_files import CONFIG_FILE, VARIABLE, Served

PORT = 5000
SERVICE_PORTS = (80, 29500)  # 29500: of KAITO's service in 2024
FOLDER = "/var/lib/kaiflow"
REGISTRY_FOLDER = str(MOUNTED_CONFIG.parent)
STARTUP_SECONDS, STARTUP_CHECKS = 10, 180  # a base of many gigabytes is read for as long
DRAIN_SECONDS = 10  # until no Service sends requests here any more
GRACE_SECONDS = 120
COMPONENT = {"app.kubernetes.io/component": "server"}

Object = dict[str, Any]


def selector(workspace: WorkspaceRef) -> dict[str, str]:
    """Return the labels by which the server's pods are found; they never change."""
    return {WORKSPACE_LABEL: workspace.name, **COMPONENT}


def objects(
    workspace: WorkspaceRef, served: Served, place: ServingPlace, replicas: int, run: str, digests: dict[str, str]
) -> Iterator[tuple[str, Object]]:
    """Yield (API path, object) in the order in which they are applied.

    ``run`` is the Workflow whose node is served on, ``digests`` are annotations of the pods.
    """
    folder = f"namespaces/{workspace.namespace}"
    name = workspace.name
    metadata = _metadata(workspace)
    yield f"/api/v1/{folder}/services/{name}", {
        "apiVersion": "v1", "kind": "Service", "metadata": metadata,
        "spec": {
            "selector": selector(workspace), "type": "ClusterIP",
            "ports": [
                {"name": f"http-{port}", "port": port, "targetPort": "http", "protocol": "TCP"}
                for port in SERVICE_PORTS
            ],
        },
    }  # fmt: skip
    yield f"/apis/apps/v1/{folder}/deployments/{name}", {
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata,
        "spec": {
            "replicas": replicas,
            "revisionHistoryLimit": 2,
            "progressDeadlineSeconds": STARTUP_SECONDS * STARTUP_CHECKS + 600,
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
            "selector": {"matchLabels": selector(workspace)},
            "template": {
                "metadata": {
                    "labels": {**place.pod_labels, **metadata["labels"], **selector(workspace)}, "annotations": digests,
                },
                "spec": _pod(served, place, run),
            },
        },
    }  # fmt: skip
    if replicas > 1:
        yield f"/apis/policy/v1/{folder}/poddisruptionbudgets/{name}", {
            "apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": metadata,
            "spec": {"maxUnavailable": 1, "selector": {"matchLabels": selector(workspace)}},
        }  # fmt: skip


def _metadata(workspace: WorkspaceRef) -> Object:
    owner = owner_reference(workspace.name, workspace.uid)
    return {
        "name": workspace.name,
        "namespace": workspace.namespace,
        "labels": {
            **MANAGED_BY, WORKSPACE_LABEL: workspace.name, **COMPONENT,
            "app.kubernetes.io/name": "kaiflow", "app.kubernetes.io/instance": workspace.name,
        },
        **({"ownerReferences": [owner]} if workspace.uid else {}),
    }  # fmt: skip


def _pod(served: Served, place: ServingPlace, run: str) -> Object:
    labels = {**place.node_labels, **({RUN_LABEL: run} if place.on_own_node else {})}
    return {
        **({"serviceAccountName": place.account} if place.account else {}),
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": GRACE_SECONDS,
        "securityContext": {
            "runAsNonRoot": True, "runAsUser": 65532, "fsGroup": 65532, "seccompProfile": {"type": "RuntimeDefault"},
        },
        **({"nodeSelector": labels} if labels else {}),
        **({"tolerations": [dict(t) for t in GPU_TOLERATIONS]} if place.gpus else {}),
        **({"imagePullSecrets": [{"name": s} for s in place.pull_secrets]} if place.pull_secrets else {}),
        "initContainers": [_files(served, place)],
        "containers": [_server(place)],
        "volumes": _volumes(place),
    }  # fmt: skip


def _files(served: Served, place: ServingPlace) -> Object:
    return {
        "name": "files",
        "command": ["python", "-m", "steps.serving_files", "--folder", FOLDER],
        "env": [
            {"name": VARIABLE, "value": json.dumps(served.model_dump(mode="json"), separators=(",", ":"))},
            *[{"name": name, "value": value} for name, value in place.environment.items()],
            *_token(place),
        ],
        "resources": {"requests": {"cpu": "500m", "memory": "1Gi"}},
        "volumeMounts": [*_mounts(), *_mounts_of(place)],
        **_container(place),
    }


def _token(place: ServingPlace) -> list[Object]:
    key = {"name": place.access_secret, "key": "HF_TOKEN", "optional": True}
    return [{"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": key}}] if place.access_secret else []


def _server(place: ServingPlace) -> Object:
    check = {"httpGet": {"path": "/health", "port": "http"}}
    gpus = {GPU: str(place.gpus)} if place.gpus else {}
    return {
        "name": "server",
        "command": [
            "python", "-m", "steps.serve", "--config", f"{FOLDER}/{CONFIG_FILE}", "--announce", "/tmp/announce.json",  # noqa: S108
        ],
        "ports": [{"name": "http", "containerPort": PORT, "protocol": "TCP"}],
        "startupProbe": {**check, "periodSeconds": STARTUP_SECONDS, "failureThreshold": STARTUP_CHECKS},
        "readinessProbe": {**check, "periodSeconds": 10, "timeoutSeconds": 5},
        "livenessProbe": {**check, "periodSeconds": 10, "timeoutSeconds": 10, "failureThreshold": 6},
        "lifecycle": {"preStop": {"exec": {"command": ["sleep", str(DRAIN_SECONDS)]}}},
        "resources": {
            "requests": {"cpu": place.cpu, "memory": place.memory, **gpus}, **({"limits": gpus} if gpus else {}),
        },
        "volumeMounts": [*_mounts(), *_mounts_of(place)],
        **_container(place),
    }  # fmt: skip


def _container(place: ServingPlace) -> Object:
    return {
        "image": place.image,
        **({"imagePullPolicy": place.pull_policy} if place.pull_policy else {}),
        "securityContext": {
            "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "runAsNonRoot": True,
            "capabilities": {"drop": ["ALL"]},
        },
    }  # fmt: skip


def _mounts() -> list[Object]:
    return [{"name": "work", "mountPath": FOLDER}, {"name": "tmp", "mountPath": "/tmp"}]  # noqa: S108  (a pod's own)


def _mounts_of(place: ServingPlace) -> list[Object]:
    own = [{"name": mount.name, "mountPath": mount.path, "readOnly": True} for mount in place.mounts]
    secret = [{"name": "registry", "mountPath": REGISTRY_FOLDER, "readOnly": True}] if place.registry_secret else []
    pulls = [
        {"name": f"pull-{index}", "mountPath": f"{PULL_SECRETS}/{index}", "readOnly": True}
        for index, _ in enumerate(place.weights_secrets)
    ]
    return [*own, *secret, *pulls]


def _volumes(place: ServingPlace) -> list[Object]:
    item = {"key": ".dockerconfigjson", "path": "config.json"}
    named = {f"pull-{index}": name for index, name in enumerate(place.weights_secrets)}
    named |= {"registry": place.registry_secret} if place.registry_secret else {}
    return [
        {"name": "work", "emptyDir": {}},
        {"name": "tmp", "emptyDir": {}},
        *[{"name": mount["name"], **mount["source"]} for mount in map(asdict, place.mounts)],
        *[
            {"name": volume, "secret": {"secretName": name, "items": [item], "optional": True}}
            for volume, name in named.items()
        ],
    ]
