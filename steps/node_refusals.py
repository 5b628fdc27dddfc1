"""Why is there no node?  What clouds and Karpenter say, as our reasons, each with its remedy.

Codes and texts: Azure's documentation of AKS and VM errors, issues of Azure/AKS and MicrosoftDocs/azure-docs#62378,
Karpenter's ``InsufficientCapacityError`` and launch conditions (kubernetes-sigs/karpenter, nodeclaim/lifecycle).
"""

import re
from dataclasses import dataclass

_BY_OTHERS = "Name other machines in kaiflow.dev/fallback-instance-types, or other zones in kaiflow.dev/zones."


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why an attempt gave no node."""

    reason: str  # CamelCase, ours
    message: str
    fix: str
    elsewhere: bool  # whether another machine, zone or price may do

    def __str__(self) -> str:
        """Return reason and message."""
        return f"{self.reason}: {self.message}"


# (reason, what codes or messages say it, remedy, whether it may be otherwise elsewhere); the first found counts.
_TABLE: tuple[tuple[str, str, str, bool], ...] = (
    (
        "NotAuthorized",
        r"AuthorizationFailed|LinkedAuthorizationFailed|does not have authorization|UnauthorizedOperation|AccessDenied"
        r"|InvalidAuthenticationToken|AuthenticationFailed|not authorized to perform",
        "Give the identity that makes nodes its role on the cluster (Azure: Contributor on the managed cluster).",
        False,
    ),
    (
        "SkuNotAvailable",
        (
            r"SkuNotAvailable|VMSizeNotAllowed|VMSizeNotSupported|NotAvailableForSubscription|InvalidVMSize"
            r"|is not allowed in your subscription|InvalidParameterValue.*instance type|Unsupported.*instance type"
            r"|UnsupportedSku"
        ),
        _BY_OTHERS,
        True,
    ),
    (
        "QuotaExceeded",
        (
            r"QuotaExceeded|InsufficientVCPUQuota|VcpuLimitExceeded|MaxSpotInstanceCountExceeded|LowPriorityQuota"
            r"|InstanceLimitExceeded|exceed\w* .*\bquota\b|\bquota\b.* exceeded"
        ),
        "Ask the cloud for more quota of this family in this region, or name a machine of another family in"
        " kaiflow.dev/fallback-instance-types.",
        True,
    ),
    (
        "InsufficientCapacity",
        r"AllocationFailed|InsufficientCapacity|InsufficientInstanceCapacity|OverconstrainedAllocation|SpotAllocation"
        r"|were unavailable during launch|all requested instance types were unavailable|UnfulfillableCapacity",
        _BY_OTHERS,
        True,
    ),
    (
        "NodeClassNotReady",
        r"NodeClassNotReady|NodeClass.*not (?:ready|found)",
        "Look at the node class that the NodeClaim names: kubectl describe it.",
        False,
    ),
    (
        "NodeBootFailed",
        r"VMExtensionProvisioning|vmssCSE|OSProvisioning|VMStartTimedOut|OutboundConnFail",
        "Look at the node's boot log and the subnet's way out; another attempt may do.",
        True,
    ),
    (
        "InvalidNodeParameters",
        r"InvalidParameter|BadRequest|PropertyChangeNotAllowed|InvalidAgentPoolName|SubnetIsFull|InsufficientSubnetSize"
        r"|RequestDisallowedByPolicy|DisallowedByPolicy",
        "Read the message: the cluster's policy or network refuses the pool as it is asked for.",
        False,
    ),
    (
        "ClusterNotFound",
        r"ParentResourceNotFound|ResourceNotFound|ResourceGroupNotFound|SubscriptionNotFound",
        "Check subscription, resource group and name of the managed cluster.",
        False,
    ),
    (
        "NodeCanceled",
        r"Canceled|Cancelled|OperationPreempted",
        "Somebody has cancelled the operation; run it again.",
        True,
    ),
)


def classify(code: str, message: str) -> Refusal | None:
    """Return the refusal that a code and its message stand for, None for words that are not known."""
    told = message.strip() or code
    for reason, pattern, fix, elsewhere in _TABLE:
        if re.search(pattern, f"{code} {message}", re.IGNORECASE):
            return Refusal(reason, told, fix, elsewhere)
    return None


def unknown(code: str, message: str) -> Refusal:
    """Return the refusal of words that are not known: they are passed on as they are."""
    return Refusal(code or "NodeNotProvided", message.strip() or "no reason was given", "Read the message.", True)
