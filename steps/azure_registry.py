"""A registry of Azure signs pods in by their workload identity: no Secret in the cluster, nothing to rotate.

The pod's Entra token is exchanged at the registry for a refresh token, which then gets tokens for a repository as
any identity token does (https://azure.github.io/acr/AAD-OAuth.html). The Entra token goes nowhere but to a registry
whose name is Azure's.
"""

import requests

from presets.errors import LATER, NotPermittedError, TryAgainError
from steps.azure_credential import credential, has_workload_identity
from steps.docker_config import Credentials

HOSTS = (".azurecr.io", ".azurecr.cn", ".azurecr.us")
SCOPE = "https://containerregistry.azure.net/.default"
TIMEOUT_SECONDS = (10, 60)


def signs_in(registry: str) -> bool:
    """Whether the registry is Azure's and this process has a workload identity."""
    return registry.endswith(HOSTS) and has_workload_identity()


def exchanged(registry: str, session: requests.Session, verify: bool | str) -> Credentials:
    """Return the refresh token that the registry gives for the pod's identity.

    Raises:
        NotPermittedError: Entra or the registry does not take the identity.
        TryAgainError: one of them does not answer.
    """
    form = {"grant_type": "access_token", "service": registry, "access_token": _entra_token(registry)}
    try:
        url = f"https://{registry}/oauth2/exchange"
        answer = session.post(url, data=form, timeout=TIMEOUT_SECONDS, verify=verify, allow_redirects=False)
    except requests.RequestException as error:
        raise _silent(registry, type(error).__name__) from error
    if answer.status_code == 429 or answer.status_code >= 500:
        raise _silent(registry, str(answer.status_code))
    token = answer.json().get("refresh_token") if answer.status_code == 200 else None
    if not token:
        raise NotPermittedError(
            "RegistryForbidden",
            f"{registry} does not take this pod's workload identity ({answer.status_code}).",
            fix="Give the managed identity the role AcrPush (AcrPull to read) on the registry.",
        )
    return Credentials(identity_token=str(token))


def _entra_token(registry: str) -> str:
    from azure.core.exceptions import ClientAuthenticationError

    try:
        return credential().get_token(SCOPE).token
    except ClientAuthenticationError as error:
        raise NotPermittedError(
            "IdentityForbidden",
            f"Entra does not take this pod's workload identity, which is to sign in to {registry}.",
            fix="Check the federated credential: issuer, namespace and service account of this pod.",
        ) from error


def _silent(registry: str, why: str) -> TryAgainError:
    return TryAgainError("RegistryUnreachable", f"{registry} does not sign pods in now ({why}).", fix=LATER)
