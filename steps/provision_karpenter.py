"""Nodes from Karpenter, or from KAITO's gpu-provisioner, which reads the same NodeClaims."""

from collections.abc import Mapping
from typing import Any

from presets.node_request import NodeAttempt, NodeRequest
from steps.cluster import Cluster
from steps.node_claims import CLAIMS, Standing, node_claim, standing
from steps.node_provisioner import POLL_SECONDS, Clock, OwnNode, RefusedError, Tell, waited
from steps.node_refusals import Refusal, classify

EVENTS = "/api/v1/events"


class Karpenter:
    """A :class:`steps.node_provisioner.Provisioner` of NodeClaims."""

    def __init__(self, request: NodeRequest, cluster: Cluster, clock: Clock) -> None:
        self._request, self._cluster, self._clock = request, cluster, clock

    def take(self, attempt: NodeAttempt, name: str, labels: Mapping[str, str], tell: Tell) -> str:
        """Apply the NodeClaim, wait until its node has its GPUs; see :class:`Provisioner`."""
        path, seconds = f"{CLAIMS}/{name}", self._request.placement.wait_seconds
        if self._cluster.get(path) is None:  # its spec cannot be changed: one that is there is ours, and as we want it
            self._cluster.apply(path, node_claim(self._request, attempt, name, labels))
        uid = ""

        def look() -> tuple[Standing, str]:
            nonlocal uid
            claim = self._cluster.get(path)
            uid = str(claim["metadata"].get("uid") or "") if claim else uid
            if claim is None or claim["metadata"].get("deletionTimestamp"):
                raise RefusedError(self._why_gone(name, uid))
            node_name = str((claim.get("status") or {}).get("nodeName") or "")
            node = self._cluster.get(f"/api/v1/nodes/{node_name}") if node_name else None
            return standing(claim, node, self._request.gpus), node_name

        return waited(look, name, seconds, self._clock.now() + seconds, self._clock, tell, POLL_SECONDS)

    def give_back(self, name: str) -> None:
        """Delete the NodeClaim; its finalizer drains the node and ends the machine."""
        self._cluster.delete(f"{CLAIMS}/{name}")

    def own(self, labels: Mapping[str, str]) -> list[OwnNode]:
        """Return the NodeClaims with these labels."""
        return [_own(claim) for claim in self._cluster.list(CLAIMS, labels)]

    def _why_gone(self, name: str, uid: str) -> Refusal:
        """Tell why a claim is gone: Karpenter deletes those that it finds no capacity for, and says so in an Event."""
        about = {"involvedObject.kind": "NodeClaim", "involvedObject.uid": uid}  # others have had its name
        for event in reversed(self._cluster.list(EVENTS, fields=about)):
            known = classify(str(event.get("reason") or ""), str(event.get("message") or ""))
            if known is not None:
                return known
        return Refusal(
            "NodeDeleted",
            f"The NodeClaim {name} was deleted while it was waited for.",
            "Look who deleted it: kubectl get events; another attempt may do.",
            elsewhere=True,
        )


def _own(claim: Mapping[str, Any]) -> OwnNode:
    metadata = claim["metadata"]
    kinds = {r.get("key"): r.get("values") or [""] for r in (claim.get("spec") or {}).get("requirements") or ()}
    return OwnNode(
        metadata["name"],
        metadata.get("labels") or {},
        str(kinds.get("node.kubernetes.io/instance-type", [""])[0]),
        str(metadata.get("creationTimestamp") or ""),
        bool(metadata.get("deletionTimestamp")),
    )
