"""The Kubernetes API as the steps need it: objects as JSON, by path; asked again while it cannot, refusals explained.

The official client signs, verifies and finds its way (service account, else kubeconfig); what is sent are plain
objects, for resources of which the client has no types (NodeClaim).
"""

import json
import os
from collections.abc import Mapping
from typing import Any

from yaml import YAMLError

from presets.errors import LATER, ConfigError, KaiflowError, NotPermittedError, TryAgainError
from steps.backoff import ATTEMPTS, PASSING, pause

MANAGER = "kaiflow"
LONGEST_WAIT_SECONDS = 30.0
TIMEOUT_SECONDS = (10.0, 60.0)  # to connect, and for an answer
FORBIDDEN = (401, 403)
PAGE = 500

Object = dict[str, Any]


class Cluster:
    """One API server, as one identity."""

    def __init__(self, client: Any, namespace: str = "default") -> None:  # noqa: ANN401  (kubernetes' ApiClient)
        self._client = client
        self.namespace = namespace  # of the kubeconfig's context

    @classmethod
    def connect(cls, context: str | None = None) -> "Cluster":
        """Return the cluster of the kubeconfig, else that of the pod's service account.

        Raises:
            ConfigError: there is neither.
        """
        try:
            from kubernetes import client, config
        except ImportError as error:
            raise ConfigError(
                "ExtraMissing", "The Kubernetes client is not installed.", fix="pip install 'kaiflow[cluster]'"
            ) from error
        configuration: Any = client.Configuration()  # its types know no False
        configuration.retries = False  # the tries are ours: urllib3 would add three to each, and wait any Retry-After
        try:
            if context or os.environ.get("KUBECONFIG"):  # load_config looks for one file of that name alone
                config.load_kube_config(context=context, client_configuration=configuration)
            else:
                config.load_config(client_configuration=configuration)
        except (config.ConfigException, YAMLError, OSError) as error:
            said = str(error).strip().rstrip(".") or type(error).__name__
            raise ConfigError(
                "ClusterUnknown", f"There is no cluster to speak to: {said}.", fix="Set KUBECONFIG, or run in a pod."
            ) from error
        return cls(client.ApiClient(configuration), _namespace(config, context))

    def get(self, path: str) -> Object | None:
        """Return the object, None when it is not there."""
        return self._ask("GET", path, missing_ok=True)

    def list(
        self, path: str, labels: Mapping[str, str] | None = None, fields: Mapping[str, str] | None = None
    ) -> list[Object]:
        """Return the objects with the labels and fields; none where the kind itself is not known."""
        selectors = {"labelSelector": _selector(labels), "fieldSelector": _selector(fields)}
        found: list[Object] = []
        going_on = ""
        while True:
            query = {"limit": PAGE, **selectors, **({"continue": going_on} if going_on else {})}
            page = self._ask("GET", path, query=query, missing_ok=True) or {}
            found += page.get("items") or []
            going_on = (page.get("metadata") or {}).get("continue", "")
            if not going_on:
                return found

    def text(self, path: str, query: Mapping[str, str] | None = None) -> str | None:
        """Return what is not JSON (a pod's log), None when it is not to be had now.

        Raises:
            NotPermittedError: it never will be.
        """
        status, said, _ = self._send("GET", path, query or {}, None, "application/json")
        if status in FORBIDDEN:
            raise _refused("GET", path, status, said)
        return said if status < 400 else None

    def post(self, path: str, body: Object) -> Object:
        """Send the object, and return the answer."""
        return self._ask("POST", path, body=body) or {}

    def ask_once(self, path: str, body: Object, timeout_seconds: float) -> Object:
        """Send what takes long to answer, and would be done once more if it were sent again."""
        timeout = (TIMEOUT_SECONDS[0], timeout_seconds)
        return self._ask("POST", path, body=body, attempts=1, timeout_seconds=timeout) or {}

    def apply(self, path: str, body: Object, *, manager: str = MANAGER, dry_run: bool = False) -> Object:
        """Apply the object server-side; ours are the fields that we name."""
        query = {"fieldManager": manager, "force": "true", **({"dryRun": "All"} if dry_run else {})}
        return self._ask("PATCH", path, query=query, body=body, kind="application/apply-patch+yaml") or {}

    def patch(self, path: str, body: Object) -> Object | None:
        """Merge a few fields into the object; None when it is not there."""
        return self._ask("PATCH", path, body=body, kind="application/merge-patch+json", missing_ok=True)

    def delete(self, path: str) -> bool:
        """Delete the object; False when it is not there."""
        return self._ask("DELETE", path, missing_ok=True) is not None

    def _ask(
        self,
        method: str,
        path: str,
        query: Mapping[str, Any] | None = None,
        body: Object | None = None,
        kind: str = "application/json",
        *,
        missing_ok: bool = False,
        attempts: int = ATTEMPTS,
        timeout_seconds: tuple[float, float] = TIMEOUT_SECONDS,
    ) -> Object | None:
        for attempt in range(attempts):
            status, text, retry_after = self._send(method, path, query or {}, body, kind, timeout_seconds)
            if status in PASSING and attempt + 1 < attempts:
                pause(attempt, retry_after, LONGEST_WAIT_SECONDS)
                continue
            if status == 404 and missing_ok:
                return None
            if status >= 400:
                raise _refused(method, path, status, text)
            return dict(json.loads(text)) if text else {}
        raise AssertionError("unreachable")

    def _send(
        self,
        method: str,
        path: str,
        query: Mapping[str, Any],
        body: Object | None,
        kind: str,
        timeout_seconds: tuple[float, float] = TIMEOUT_SECONDS,
    ) -> tuple[int, str, str]:
        """Return (status, body, Retry-After); status 503 where nobody answers."""
        import urllib3
        from kubernetes.client import ApiException

        headers: dict[str, str] = {"Accept": "application/json", "Content-Type": kind}
        self._client.update_params_for_auth(headers, [], ["BearerToken"])
        try:
            answer = self._client.rest_client.request(
                method,
                self._client.configuration.host + path,
                query_params=list(query.items()),
                headers=headers,
                body=body,
                _request_timeout=timeout_seconds,
            )
        except ApiException as error:
            if not error.status:  # TLS: a certificate that is not trusted, say
                return 503, json.dumps({"message": " ".join(str(error.reason).split())}), ""
            sent = error.headers or {}
            said = error.body.decode(errors="replace") if isinstance(error.body, bytes) else str(error.body or "")
            return error.status, said, str(sent.get("Retry-After", ""))
        except (urllib3.exceptions.HTTPError, OSError) as error:
            return 503, json.dumps({"message": type(error).__name__}), ""
        return answer.status, (answer.data or b"").decode(), ""


def _namespace(config: Any, context: str | None) -> str:  # noqa: ANN401  (kubernetes.config)
    """Return the namespace of the kubeconfig's context, ``default`` where there is none."""
    try:
        contexts, active = config.list_kube_config_contexts()
    except config.ConfigException:  # in a pod
        return "default"
    chosen = next((c for c in contexts if c["name"] == context), active)
    return str((chosen.get("context") or {}).get("namespace") or "default")


def _selector(wanted: Mapping[str, str] | None) -> str:
    return ",".join(f"{key}={value}" for key, value in (wanted or {}).items())


def _refused(method: str, path: str, status: int, text: str) -> KaiflowError:
    try:
        said = str(json.loads(text).get("message") or text)
    except (ValueError, AttributeError):
        said = text[:200]
    what = f"{method} {path.partition('?')[0]}: {status} {said}".rstrip()
    if status in FORBIDDEN:
        fix = "Ask for this right; a step's account has it where kaiflow's role is bound to it, which the chart does."
        return NotPermittedError("ClusterForbidden", what, fix=fix)
    if status in PASSING:
        return TryAgainError("ClusterUnreachable", what, fix=LATER)
    return ConfigError("ObjectRefused", what, fix="Check the versions of the cluster's CRDs, and the values named.")
