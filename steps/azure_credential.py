"""Who a pod is to Azure: its workload identity, a service account that Entra trusts instead of a password.

The webhook of Azure Workload Identity sets AZURE_CLIENT_ID, AZURE_TENANT_ID and AZURE_FEDERATED_TOKEN_FILE in pods
labelled ``azure.workload.identity/use: "true"``. On a person's machine the Azure CLI's sign-in is taken.
"""

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from azure.core.credentials import TokenCredential

FEDERATED = ("AZURE_CLIENT_ID", "AZURE_TENANT_ID", "AZURE_FEDERATED_TOKEN_FILE")


def has_workload_identity() -> bool:
    """Whether this process has been given a workload identity."""
    return all(os.environ.get(name) for name in FEDERATED)


def credential() -> "TokenCredential":
    """Return what signs requests to Azure: the workload identity, else the Azure CLI's sign-in."""
    from azure.identity import AzureCliCredential, WorkloadIdentityCredential

    if not has_workload_identity():
        return AzureCliCredential()
    own_authority = bool(os.environ.get("AZURE_AUTHORITY_HOST"))  # a private cloud's, which Entra does not list
    return WorkloadIdentityCredential(disable_instance_discovery=own_authority)
