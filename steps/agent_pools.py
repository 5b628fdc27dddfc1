"""An agent pool of AKS as it is asked for, and what its refusals say.  Pure."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from presets.node_request import AksCluster, NodeAttempt, NodeRequest
from steps.node_claims import TAINT, node_labels
from steps.node_refusals import Refusal, classify, unknown

if TYPE_CHECKING:
    from azure.core.exceptions import HttpResponseError

CREATED_AT_TAG = "kaiflow.dev_created-at"


def agent_pool(
    request: NodeRequest, attempt: NodeAttempt, labels: Mapping[str, str], aks: AksCluster, created_at: str
) -> dict[str, Any]:
    """Return the pool of one attempt, of one node, as AKS's REST API writes it; ``created_at`` as Kubernetes does."""
    spot = {"scaleSetPriority": "Spot", "scaleSetEvictionPolicy": "Delete", "spotMaxPrice": -1}
    scaling = {"enableAutoScaling": True, "minCount": 0, "maxCount": 1}
    return {
        "properties": {
            "count": 1,
            "vmSize": attempt.instance_type,
            "mode": "User",
            "osType": "Linux",
            "osDiskSizeGB": request.disk_gib,
            "nodeLabels": node_labels(request, labels),
            "nodeTaints": ["{key}={value}:{effect}".format(**TAINT)],
            "gpuProfile": {"driver": aks.gpu_driver},
            # Tags take no slashes. A pool does not tell its age by itself.
            "tags": {**{key.replace("/", "_"): value for key, value in labels.items()}, CREATED_AT_TAG: created_at},
            **({"availabilityZones": [attempt.zone]} if attempt.zone else {}),
            **(spot if attempt.spot else {}),
            **(scaling if aks.autoscale else {}),
        }
    }


def refusal_of(error: "HttpResponseError") -> Refusal:
    """Return what an error of ARM or AKS stands for; the innermost detail that is known counts.

    A long-running operation that fails arrives with status 200; QuotaExceeded hides in InvalidTemplateDeployment; AKS's
    own errors have no ``error`` envelope. The SDK reads all of them into ``error.error``.
    """
    message = str(error.message or error)
    return _refusal(getattr(error, "error", None)) or classify("", message) or unknown("", message)


def pool_refusal(status: Any, state: str) -> Refusal:  # noqa: ANN401  (the SDK's AgentPoolStatus)
    """Return why a pool has failed, as its own status tells."""
    error = getattr(status, "provisioning_error", None)
    return _refusal(error) or unknown("NodePoolFailed", f"the agent pool is {state}")


def _refusal(error: Any) -> Refusal | None:  # noqa: ANN401  (ODataV4Format, or the SDK's ErrorDetail)
    """Return the innermost refusal that is known, else the outermost words; None where there are none."""
    found = _codes(error)
    known = next(filter(None, (classify(code, message) for code, message in reversed(found))), None)
    return known or (unknown(*found[0]) if found else None)


def _codes(error: Any) -> list[tuple[str, str]]:  # noqa: ANN401
    """Return (code, message) of an error and of all that it holds, outermost first."""
    if error is None:
        return []
    inner = [pair for detail in getattr(error, "details", None) or () for pair in _codes(detail)]
    return [(str(error.code or ""), str(error.message or "")), *inner]
