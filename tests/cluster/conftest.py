"""A real API server, named by KUBECONFIG; NodeClaims on it, and what moves them where no Karpenter is."""

import os
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from presets.crd import crd
from steps import node_provisioner, provision_karpenter
from steps.cluster import Cluster
from tests.cluster.argo import argo_crd

CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
GROUP = "karpenter.sh"
ANYTHING = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
CRD = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": f"nodeclaims.{GROUP}"},
    "spec": {
        "group": GROUP,
        "scope": "Cluster",
        "names": {"kind": "NodeClaim", "plural": "nodeclaims", "singular": "nodeclaim", "listKind": "NodeClaimList"},
        "versions": [
            {
                "name": "v1", "served": True, "storage": True, "subresources": {"status": {}},
                "schema": {"openAPIV3Schema": {
                    "type": "object",
                    "properties": {"spec": ANYTHING, "status": ANYTHING},
                }},
            }
        ],
    },
}  # fmt: skip


def pytest_collection_modifyitems(items):
    """Everything here needs a cluster."""
    for item in items:
        if "tests/cluster/" in str(item.path):
            item.add_marker(pytest.mark.cluster)


def established(cluster, body):
    """Apply a CRD, and wait until the server knows its kind."""
    path = f"{CRDS}/{body['metadata']['name']}"
    cluster.apply(path, body)
    for _ in range(200):
        conditions = ((cluster.get(path) or {}).get("status") or {}).get("conditions") or ()
        if {c["type"]: c["status"] for c in conditions}.get("Established") == "True":
            return
        time.sleep(0.05)
    raise TimeoutError("the CRD is not established")


def without_cel(body):
    """Return the CRD as a server takes it that has no rules."""
    if isinstance(body, dict):
        return {key: without_cel(value) for key, value in body.items() if key != "x-kubernetes-validations"}
    return [without_cel(value) for value in body] if isinstance(body, list) else body


@pytest.fixture(scope="session")
def cluster():
    """The API server of KUBECONFIG."""
    if not os.environ.get("KUBECONFIG"):
        pytest.skip("KUBECONFIG names no cluster")
    found = Cluster.connect()
    established(found, CRD)
    return found


@pytest.fixture(scope="session")
def knows_cel(cluster):
    """Whether the server has rules in CRDs; one before 1.23 does not know the field, and leaves it out."""
    body = argo_crd("Probe")
    rule = {"rule": "true", "message": "never"}
    body["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["x-kubernetes-validations"] = [rule]
    return "x-kubernetes-validations" in str(cluster.post(f"{CRDS}?dryRun=All", body))


@pytest.fixture(scope="session")
def kinds(cluster, knows_cel):
    """A cluster that knows Workspaces and Argo's kinds."""
    own = crd() if knows_cel else without_cel(crd())
    for body in (own, argo_crd("Workflow"), argo_crd("CronWorkflow")):
        established(cluster, body)


class StandIn:
    """Plays Karpenter: moves the conditions of NodeClaims, adds their Nodes, takes both away; ``fault`` by name.

    A thread that looks at all NodeClaims again and again, as a controller does; what it does is a function of what is
    there.
    """

    FINALIZER = "karpenter.sh/termination"

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.fault: Callable[[dict[str, Any]], str] = lambda claim: ""
        self.launched: list[str] = []  # instance types of machines that were started, in order
        self.beside: list[int] = []  # how many other claims were there at each of these starts
        self.ends_after_seconds = 0.0  # a node is drained, and its machine ends
        self._leaving: dict[str, float] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "StandIn":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        for claim in self.cluster.list(provision_karpenter.CLAIMS):
            self._gone(claim)
            self.cluster.delete(f"{provision_karpenter.CLAIMS}/{claim['metadata']['name']}")

    def _run(self) -> None:
        while not self._stop.wait(0.03):
            for claim in self.cluster.list(provision_karpenter.CLAIMS):
                self._move(claim)

    def _move(self, claim: dict[str, Any]) -> None:
        name = claim["metadata"]["name"]
        path = f"{provision_karpenter.CLAIMS}/{name}"
        if claim["metadata"].get("deletionTimestamp"):
            since = self._leaving.setdefault(claim["metadata"]["uid"], time.monotonic())
            if time.monotonic() - since >= self.ends_after_seconds:
                self._gone(claim)
            return
        if self.FINALIZER not in claim["metadata"].get("finalizers", ()):
            self.cluster.patch(path, {"metadata": {"finalizers": [self.FINALIZER]}})
            return
        fault = self.fault(claim)
        if fault == "never launched":
            self._say(path, Launched=("Unknown", "AwaitingReconciliation", "object is awaiting reconciliation"))
        elif fault == "quota":
            self._say(
                path, Launched=("Unknown", "LaunchFailed", "exceeding approved standardNCADSA100v4Family Cores quota")
            )
        elif fault == "no capacity":  # as Karpenter: an Event, and the claim is deleted
            self._event(
                claim, "InsufficientCapacityError", "all requested instance types were unavailable during launch"
            )
            self.cluster.delete(path)
        elif fault == "deleted":
            self.cluster.delete(path)
        elif not (claim.get("status") or {}).get("nodeName"):
            self.beside.append(len(self.cluster.list(provision_karpenter.CLAIMS)) - 1)
            self.launched.append(claim["spec"]["requirements"][1]["values"][0])
            self._node(name, claim["metadata"]["labels"], "0" if fault == "no GPU plugin" else "1")
            done = {stage: ("True", stage, "") for stage in ("Launched", "Registered", "Initialized", "Ready")}
            self._say(path, nodeName=f"node-{name}", **done)

    def _say(self, path: str, nodeName: str = "", **conditions: tuple[str, str, str]) -> None:  # noqa: N803
        told = [
            {"type": kind, "status": status, "reason": reason, "message": message,
             "lastTransitionTime": "2026-11-25T00:00:00Z"}
            for kind, (status, reason, message) in conditions.items()
        ]  # fmt: skip
        status = {"conditions": told, **({"nodeName": nodeName} if nodeName else {})}
        self.cluster.patch(f"{path}/status", {"status": status})

    def _node(self, name: str, labels: dict[str, str], gpus: str) -> None:
        node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": f"node-{name}", "labels": labels}}
        self.cluster.apply(f"/api/v1/nodes/node-{name}", node)
        resources = {"cpu": "24", "memory": "200Gi", "pods": "110", "nvidia.com/gpu": gpus}
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        ready = {
            "type": "Ready",
            "status": "True",
            "reason": "KubeletReady",
            "lastHeartbeatTime": now,
            "lastTransitionTime": now,
        }
        status = {"capacity": resources, "allocatable": resources, "conditions": [ready]}
        self.cluster.patch(f"/api/v1/nodes/node-{name}/status", {"status": status})

    def _event(self, claim: dict[str, Any], reason: str, message: str) -> None:
        name, uid = claim["metadata"]["name"], claim["metadata"]["uid"]
        body = {
            "apiVersion": "v1", "kind": "Event",
            "metadata": {"name": f"{name}.{reason.lower()}", "namespace": "default"},
            "involvedObject": {"apiVersion": "karpenter.sh/v1", "kind": "NodeClaim", "name": name, "uid": uid},
            "reason": reason, "message": message, "type": "Warning",
        }  # fmt: skip
        self.cluster.apply(f"/api/v1/namespaces/default/events/{body['metadata']['name']}", body)

    def _gone(self, claim: dict[str, Any]) -> None:
        name = claim["metadata"]["name"]
        self.cluster.delete(f"/api/v1/nodes/node-{name}")
        self.cluster.patch(f"{provision_karpenter.CLAIMS}/{name}", {"metadata": {"finalizers": None}})


@pytest.fixture
def karpenter(cluster, monkeypatch):
    """The stand-in, at work."""
    for module in (node_provisioner, provision_karpenter):
        monkeypatch.setattr(module, "POLL_SECONDS", 0.02)
    with StandIn(cluster) as found:
        yield found


def left_behind(cluster: Cluster) -> list[str]:
    """Return the names of NodeClaims and of their nodes that are there."""
    claims = [c["metadata"]["name"] for c in cluster.list(provision_karpenter.CLAIMS)]
    nodes = [n["metadata"]["name"] for n in cluster.list("/api/v1/nodes", {"kaiflow.dev/node": "true"})]
    return claims + nodes
