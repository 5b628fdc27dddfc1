"""Who the controller is to the API server, and over which connection: a pod's service account, else the kubeconfig.

In a pod the account's files are read here, and again every minute, since the kubelet renews the token: the official
client would cost 75 MiB of memory for it. Elsewhere the official client reads the kubeconfig, exec plugins included.
"""

import os
import ssl
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from presets.errors import ConfigError

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
ACCOUNT_VARIABLE = "KAIFLOW_SERVICE_ACCOUNT"  # another folder that holds token and ca.crt
TOKEN_SECONDS = 60.0
CONNECTIONS = 64

Headers = dict[str, str]


@dataclass(frozen=True, slots=True)
class Login:
    """An API server, a session with it, and what each request must carry."""

    host: str
    session: aiohttp.ClientSession
    headers: Callable[[], Awaitable[Headers]]
    namespace: str  # of the pod, or of the kubeconfig's context


async def login() -> Login:
    """Return the login of the pod's service account, else that of the kubeconfig.

    Raises:
        ConfigError: there is neither.
    """
    folder = Path(os.environ.get(ACCOUNT_VARIABLE, ACCOUNT))
    address = os.environ.get("KUBERNETES_SERVICE_HOST")
    if address and (folder / "token").is_file():
        return _in_pod(folder, address, os.environ.get("KUBERNETES_SERVICE_PORT", "443"))
    return await _by_kubeconfig()


def _in_pod(folder: Path, address: str, port: str) -> Login:
    host = f"[{address}]" if ":" in address else address
    trust = ssl.create_default_context(cafile=folder / "ca.crt")
    token = _Token(folder / "token")
    namespace = folder / "namespace"
    return Login(
        f"https://{host}:{port}",
        _session(aiohttp.TCPConnector(limit=CONNECTIONS, ssl=trust)),
        token.headers,
        namespace.read_text().strip() if namespace.is_file() else "default",
    )


class _Token:
    """The account's token, read again every minute."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read_at = -TOKEN_SECONDS
        self._headers: Headers = {}

    async def headers(self) -> Headers:
        """Return what says who we are."""
        if time.monotonic() - self._read_at >= TOKEN_SECONDS:
            self._headers = {"Authorization": f"Bearer {self._path.read_text().strip()}"}
            self._read_at = time.monotonic()
        return self._headers


async def _by_kubeconfig() -> Login:
    from kubernetes.aio import client, config

    configuration = client.Configuration()
    configuration.connection_pool_maxsize = CONNECTIONS
    try:
        await config.load_kube_config(client_configuration=configuration)
    except config.ConfigException as error:
        raise ConfigError(
            "ClusterUnknown", "There is no cluster to speak to.", fix="Set KUBECONFIG, or run in a pod."
        ) from error
    api_client = client.ApiClient(configuration)

    async def headers() -> Headers:
        said: Headers = {}
        await api_client.update_params_for_auth(said, [], ["BearerToken"])
        return said

    return Login(configuration.host, api_client.rest_client.pool_manager, headers, _context_namespace(config))


def _context_namespace(config: object) -> str:
    _, active = config.list_kube_config_contexts()  # type: ignore[attr-defined]
    return str((active.get("context") or {}).get("namespace") or "default")


def _session(connector: aiohttp.TCPConnector) -> aiohttp.ClientSession:
    # trust_env would read ~/.netrc at every request, in a thread; a pod speaks to its API server without a proxy.
    return aiohttp.ClientSession(connector=connector)
