"""What the Azure SDK raises, as our errors: what passes is tried again, what a person must mend says how."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from presets.errors import LATER, ConfigError, KaiflowError, NotPermittedError, TryAgainError, UnavailableError
from steps.agent_pools import refusal_of
from steps.backoff import PASSING
from steps.node_refusals import Refusal

if TYPE_CHECKING:
    from azure.core.exceptions import HttpResponseError


@contextmanager
def explained(what: str) -> Iterator[None]:
    """Raise what the SDK raises as one of our errors; ``what`` is said before Azure's words.

    Raises:
        TryAgainError: Azure does not answer, or cannot now.
        NotPermittedError: the identity may not, or there is none.
        ConfigError: the cluster is not there.
        UnavailableError: Azure refuses.
    """
    from azure.core.exceptions import AzureError, HttpResponseError

    try:
        yield
    except HttpResponseError as error:
        raise our_error(what, error) from error
    except AzureError as error:  # of the connection
        raise TryAgainError("AzureUnreachable", f"{what}: {type(error).__name__}.", fix=LATER) from error


def our_error(what: str, error: "HttpResponseError") -> KaiflowError:
    """Return the error that a refusal of ARM or AKS is."""
    from azure.core.exceptions import ClientAuthenticationError

    if isinstance(error, ClientAuthenticationError):
        return NotPermittedError(
            "NotAuthorized", f"{what}: Azure does not take this pod's identity.",
            fix="Check the workload identity: client id, federated credential, the label of the pod.",
        )  # fmt: skip
    refusal = refusal_of(error)
    said = f"{what}: {refusal.message}"
    if passes(error):
        return TryAgainError(refusal.reason, said, fix=LATER)
    kind = {"NotAuthorized": NotPermittedError, "ClusterNotFound": ConfigError}.get(refusal.reason, UnavailableError)
    return kind(refusal.reason, said, fix=refusal.fix)


def passes(error: "HttpResponseError") -> bool:
    """Whether the same request may do later: Azure is busy, or stumbles."""
    return error.status_code in PASSING


def is_busy(error: "HttpResponseError", refusal: Refusal) -> bool:
    """Whether a conflict (409) is another operation that is under way, and not a refusal that says no."""
    words = f"{refusal.message} {error.message}".lower()
    return any(word in words for word in ("in progress", "anotheroperation", "being deleted", "being created"))
