"""Nodes from agent pools of AKS, one pool of one node a run.

The pool is created under ``If-None-Match: *``, so that two tries never make two; its long-running operation is gone on
with after a restart by the token that lies in the step's folder, or, where that is lost, by asking the pool itself. A
pool that has failed is deleted before the next is tried.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from presets.errors import LATER, ConfigError, TryAgainError
from presets.node_request import AksCluster, NodeAttempt, NodeRequest
from steps import logs
from steps.agent_pools import CREATED_AT_TAG, agent_pool, pool_refusal, refusal_of
from steps.azure_errors import explained, is_busy, our_error, passes
from steps.cluster import Cluster
from steps.contract import RUN_LABEL, timestamp
from steps.node_claims import Standing, node_standing
from steps.node_provisioner import POLL_SECONDS, Clock, OwnNode, RefusedError, Tell, waited
from steps.node_refusals import Refusal

if TYPE_CHECKING:
    from azure.core.exceptions import AzureError
    from azure.mgmt.containerservice import ContainerServiceClient

OVER = ("Succeeded", "Failed", "Canceled")
LEAVING = "Deleting"


class Aks:
    """A :class:`steps.node_provisioner.Provisioner` of agent pools."""

    def __init__(
        self, request: NodeRequest, aks: AksCluster, client: "ContainerServiceClient", cluster: Cluster, clock: Clock,
        tokens: Path | None = None,
    ) -> None:  # fmt: skip
        self._request, self._aks, self._cluster, self._clock, self._tokens = request, aks, cluster, clock, tokens
        self._pools: Any = client.agent_pools  # its overloads do not take arguments by name and place together
        self._at = (aks.resource_group, aks.name)

    @classmethod
    def connect(cls, request: NodeRequest, cluster: Cluster, clock: Clock, tokens: Path | None = None) -> "Aks":
        """Return the maker of pools of the cluster that the request names, as this pod's Azure identity.

        Raises:
            ConfigError: it names none.
        """
        from azure.mgmt.containerservice import ContainerServiceClient

        from steps.azure_credential import credential

        aks = request.placement.aks
        if aks is None:
            raise ConfigError(
                "AksClusterMissing", "Which managed cluster?", fix="Name subscription, resource group and cluster."
            )
        return cls(request, aks, ContainerServiceClient(credential(), aks.subscription), cluster, clock, tokens)

    def take(self, attempt: NodeAttempt, name: str, labels: Mapping[str, str], tell: Tell) -> str:
        """Create the pool, wait until its node has its GPUs; see :class:`Provisioner`."""
        seconds = self._request.placement.wait_seconds
        until = self._clock.now() + seconds
        self._created(attempt, name, labels, tell, until)

        def look() -> tuple[Standing, str]:
            nodes = self._cluster.list("/api/v1/nodes", {RUN_LABEL: labels[RUN_LABEL]})
            node = next((n for n in nodes if str(n["metadata"]["name"]).startswith(f"aks-{name}-")), None)
            return node_standing(node, self._request.gpus), str(node["metadata"]["name"]) if node else ""

        return waited(look, name, seconds, until, self._clock, tell, POLL_SECONDS)

    def give_back(self, name: str) -> None:
        """Delete the pool and wait until it is gone; while the cluster is at something else, that is waited for.

        Raises:
            KaiflowError: Azure does not let it be deleted.
            TryAgainError: it takes too long, fails, or the cluster has been at other operations all the time.
        """
        from azure.core.exceptions import ResourceExistsError, ResourceNotFoundError

        until = self._clock.now() + self._request.placement.wait_seconds
        what = f"{name} is not given back"
        while True:
            with explained(what):
                try:
                    self._delete(name, until)
                    return
                except ResourceNotFoundError:
                    return
                except ResourceExistsError as error:
                    if self._clock.now() >= until:
                        why = f"{what} yet: {error.message}"
                        raise TryAgainError("OperationInProgress", why, fix=LATER) from error
            self._wait_while_busy(name, until)
            self._clock.sleep(POLL_SECONDS)

    def _delete(self, name: str, until: float) -> None:
        from azure.core.exceptions import HttpResponseError

        poller = self._pools.begin_delete(*self._at, name, ignore_pod_disruption_budget=True, **self._polling)
        try:
            poller.wait(timeout=max(0.0, until - self._clock.now()))  # raises what the operation has ended with
        except HttpResponseError as error:
            if error.status_code in (401, 403):
                raise
            refusal = refusal_of(error)  # of this operation: another may do
            said = f"{name} is not given back: {refusal.message}"
            raise TryAgainError(refusal.reason, said, fix=LATER) from error
        if not poller.done():
            why = f"{name} is being deleted, and not gone yet."
            raise TryAgainError("OperationInProgress", why, fix=LATER)

    def own(self, labels: Mapping[str, str]) -> list[OwnNode]:
        """Return the pools with these labels.

        Raises:
            KaiflowError: Azure does not list them.
        """
        found = []
        with explained("Azure does not list the agent pools"):
            for pool in self._pools.list(*self._at):
                carried = dict(pool.properties.node_labels or {})
                if labels.items() <= carried.items():
                    leaving = pool.properties.provisioning_state == LEAVING
                    created_at = str((pool.properties.tags or {}).get(CREATED_AT_TAG) or "")
                    found.append(OwnNode(str(pool.name), carried, str(pool.properties.vm_size), created_at, leaving))
        return found

    @property
    def _polling(self) -> dict[str, float]:
        return {"polling_interval": POLL_SECONDS}

    def _created(self, attempt: NodeAttempt, name: str, labels: Mapping[str, str], tell: Tell, until: float) -> None:
        """Return when the pool has been created; the token stays where this process is killed meanwhile."""
        try:
            while not self._create(attempt, name, labels, tell, until):
                self._clock.sleep(POLL_SECONDS)  # the cluster is at something else
        except RefusedError:
            self._forget_token(name)
            raise
        self._forget_token(name)

    def _create(self, attempt: NodeAttempt, name: str, labels: Mapping[str, str], tell: Tell, until: float) -> bool:
        """Make the pool; False where it is to be asked for again."""
        from azure.core.exceptions import AzureError

        token = self._read_token(name)
        try:
            poller = self._begun(agent_pool(self._request, attempt, labels, self._aks, timestamp()), name, tell, token)
            poller.wait(timeout=max(0.0, until - self._clock.now()))
            if not poller.done():
                raise RefusedError(_not_in_time(name, self._request.placement.wait_seconds))
            poller.result()
        except ValueError:  # no token that the SDK reads
            self._forget_token(name)
            return False
        except AzureError as error:
            return self._answered(error, name, tell, token, until)
        return True

    def _begun(self, wanted: Mapping[str, Any], name: str, tell: Tell, token: str) -> Any:  # noqa: ANN401  (LROPoller)
        """Return the operation that makes the pool: the one of the token, or a new one."""
        from azure.core import MatchConditions

        if token:
            logs.event("resumed", pool=name)
            return self._pools.begin_create_or_update(
                *self._at, name, wanted, continuation_token=token, **self._polling
            )
        tell(f"{name}: is asked for")
        poller = self._pools.begin_create_or_update(
            *self._at, name, wanted, match_condition=MatchConditions.IfMissing, **self._polling
        )
        self._write_token(name, poller.continuation_token())
        return poller

    def _answered(self, error: "AzureError", name: str, tell: Tell, token: str, until: float) -> bool:
        """Return what :meth:`_create` does where Azure has not made the pool at once.

        Raises:
            RefusedError: it will not.
            KaiflowError: it cannot now, or does not know us.
        """
        from azure.core.exceptions import ClientAuthenticationError, HttpResponseError, ResourceExistsError

        if not isinstance(error, HttpResponseError):  # of the connection
            said = f"{name} is not made: {type(error).__name__}."
            raise TryAgainError("AzureUnreachable", said, fix=LATER) from error
        if token and error.status_code == 404:  # an operation is known for a while only: what has come of it?
            self._forget_token(name)
            return False
        if passes(error) or (isinstance(error, ClientAuthenticationError) and error.status_code is None):
            raise our_error(f"{name} is not made", error) from error
        refusal = refusal_of(error)
        if not isinstance(error, ResourceExistsError) or (error.status_code == 409 and not is_busy(error, refusal)):
            raise RefusedError(refusal) from error
        if self._wait_while_busy(name, until) is None and self._clock.now() < until:
            tell(f"{name}: waits, {error.message}")
            return False
        self._wait_for_pool(name, until)  # another try of this run has made it
        return True

    def _wait_for_pool(self, name: str, until: float) -> None:
        """Wait for a pool that an earlier try has asked for, by what it says of itself."""
        pool = self._wait_while_busy(name, until)
        state = str(pool.properties.provisioning_state) if pool else "gone"
        if state not in OVER:
            raise RefusedError(_not_in_time(name, self._request.placement.wait_seconds))
        if state != "Succeeded" and pool is not None:
            raise RefusedError(pool_refusal(pool.properties.status, state))

    def _wait_while_busy(self, name: str, until: float | None = None) -> Any:  # noqa: ANN401  (the SDK's AgentPool, or None)
        from azure.core.exceptions import ResourceNotFoundError

        last = until if until is not None else self._clock.now() + self._request.placement.wait_seconds
        while True:
            with explained(f"Azure does not tell how {name} is"):
                try:
                    pool = self._pools.get(*self._at, name)
                except ResourceNotFoundError:
                    return None
            if pool.properties.provisioning_state in OVER or self._clock.now() >= last:
                return pool
            self._clock.sleep(POLL_SECONDS)

    def _token_path(self, name: str) -> Path | None:
        return self._tokens / f"{name}.operation.json" if self._tokens else None

    def _read_token(self, name: str) -> str:
        path = self._token_path(name)
        try:
            return str(json.loads(path.read_text())["token"]) if path and path.exists() else ""
        except (ValueError, KeyError, OSError):
            return ""

    def _write_token(self, name: str, token: Any) -> None:  # noqa: ANN401
        path = self._token_path(name)
        if path is not None:
            part = path.with_suffix(".part")
            part.write_text(json.dumps({"token": str(token)}))
            part.replace(path)

    def _forget_token(self, name: str) -> None:
        path = self._token_path(name)
        if path is not None:
            path.unlink(missing_ok=True)


def _not_in_time(name: str, seconds: int) -> Refusal:
    return Refusal(
        "NodeTimeout",
        f"The agent pool {name} was not made within {seconds} s.",
        "Look at the activity log of the managed cluster; another machine or zone may do.",
        elsewhere=True,
    )
