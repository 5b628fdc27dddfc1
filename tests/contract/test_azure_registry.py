"""A pod signs in to a registry of Azure by its workload identity: azure-identity itself, over TLS, to a small Entra."""

import json
from http.server import BaseHTTPRequestHandler
from urllib.parse import parse_qs

import pytest
import requests

from presets.errors import NotPermittedError, TryAgainError
from steps import azure_registry
from steps.docker_config import DockerConfig
from steps.registry_auth import RegistryAuth
from tests.registries import certificate
from tests.servers import serving

TENANT = "11111111-2222-3333-4444-555555555555"


class Entra:
    """Entra, and the sign-in of one registry, on one address; ``told`` holds the forms that came, by path."""

    def __init__(self, port):
        self.port, self.told, self.exchange_status, self.known = port, [], 200, True
        self.refresh: str | None = "acr-refresh"  # None: the registry takes not even its own

    def answer(self, path, form):
        path = path.partition("?")[0]
        self.told.append((path, form))
        if path.endswith("/oauth2/v2.0/token"):
            if not self.known:
                return 401, {
                    "error": "invalid_client",
                    "error_description": "AADSTS70021: No matching federated identity",
                }
            return 200, {"access_token": "entra-token", "expires_in": 3600, "token_type": "Bearer"}
        if path == "/oauth2/exchange":
            return self.exchange_status, {"refresh_token": self.refresh or "none"}
        if path == "/oauth2/token":
            known = form.get("refresh_token") == self.refresh
            return (200, {"access_token": f"for {form['scope']}"}) if known else (401, {})
        root = f"https://localhost:{self.port}/{TENANT}"
        return 200, {
            "authorization_endpoint": f"{root}/oauth2/v2.0/authorize", "token_endpoint": f"{root}/oauth2/v2.0/token",
            "issuer": f"{root}/v2.0",
        }  # fmt: skip


@pytest.fixture
def entra(tmp_path, monkeypatch):
    cert = certificate(tmp_path)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            form = parse_qs(self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode())
            status, body = found.answer(self.path, {name: values[0] for name, values in form.items()})
            data = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST  # noqa: N815  (http.server's names)

        def log_message(self, format, *args):  # noqa: A002
            """Say nothing."""

    (tmp_path / "token").write_text("projected-service-account-token")
    with serving(Handler, certificate=cert, key=tmp_path / "key.pem") as port:
        found = Entra(port)
        for name, value in {
            "AZURE_CLIENT_ID": "client", "AZURE_TENANT_ID": TENANT,
            "AZURE_FEDERATED_TOKEN_FILE": str(tmp_path / "token"),
            "AZURE_AUTHORITY_HOST": f"https://localhost:{port}", "REQUESTS_CA_BUNDLE": str(cert),
        }.items():  # fmt: skip
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(azure_registry, "HOSTS", (f"localhost:{port}",))
        yield found, str(cert)


def signing(entra, config=None):
    found, cert = entra
    registry = f"localhost:{found.port}"
    return RegistryAuth(registry, config or DockerConfig([]), requests.Session(), plain=False, verify=cert)


def challenge(entra):
    return f'Bearer realm="https://localhost:{entra[0].port}/oauth2/token",service="localhost:{entra[0].port}"'


def test_the_pods_identity_is_exchanged_once_and_gets_a_token_for_each_access(entra):
    auth = signing(entra)
    assert auth.answer(challenge(entra), "team/a", push=False) == {"Authorization": "Bearer for repository:team/a:pull"}
    pushing = auth.answer(challenge(entra), "team/a", push=True)
    assert pushing == {"Authorization": "Bearer for repository:team/a:pull,push"}
    forms = dict(entra[0].told)
    assert [path for path, _ in entra[0].told].count("/oauth2/exchange") == 1
    assert forms[f"/{TENANT}/oauth2/v2.0/token"]["client_assertion"] == "projected-service-account-token"
    assert forms[f"/{TENANT}/oauth2/v2.0/token"]["scope"] == "https://containerregistry.azure.net/.default"
    assert forms["/oauth2/exchange"]["access_token"] == "entra-token"


def test_an_identity_that_has_expired_in_a_long_run_is_exchanged_again(entra):
    auth = signing(entra)
    auth.answer(challenge(entra), "team/a", push=False)
    entra[0].refresh = "acr-refresh-of-now"
    pushing = auth.answer(challenge(entra), "team/a", push=True)
    assert pushing == {"Authorization": "Bearer for repository:team/a:pull,push"}
    assert [path for path, _ in entra[0].told].count("/oauth2/exchange") == 2


def test_a_refusal_of_what_was_just_exchanged_is_final(entra):
    entra[0].refresh = None
    with pytest.raises(NotPermittedError):
        signing(entra).answer(challenge(entra), "team/a", push=False)
    assert [path for path, _ in entra[0].told].count("/oauth2/exchange") == 1


def test_a_secret_for_the_registry_goes_before_the_identity(entra):
    registry = f"localhost:{entra[0].port}"
    config = DockerConfig([{"auths": {registry: {"identitytoken": "acr-refresh"}}}])
    signing(entra, config).answer(challenge(entra), "team/a", push=False)
    assert [path for path, _ in entra[0].told] == ["/oauth2/token"]


def test_no_other_registry_is_told_of_the_identity(entra, monkeypatch):
    monkeypatch.setattr(azure_registry, "HOSTS", (".azurecr.io",))
    with pytest.raises(NotPermittedError):
        signing(entra).answer(challenge(entra), "team/a", push=False)
    assert entra[0].told == [("/oauth2/token", {})]


@pytest.mark.parametrize(
    ("status", "kind", "said"),
    [(401, NotPermittedError, "AcrPush"), (403, NotPermittedError, "AcrPush"), (503, TryAgainError, "run it again")],
)
def test_an_exchange_that_is_refused_says_what_to_do(entra, status, kind, said):
    entra[0].exchange_status = status
    with pytest.raises(kind) as raised:
        signing(entra).answer(challenge(entra), "team/a", push=False)
    assert said in raised.value.fix
    assert "entra-token" not in str(raised.value)


def test_an_identity_that_entra_does_not_know_says_what_to_check(entra):
    entra[0].known = False
    with pytest.raises(NotPermittedError, match="Entra does not take") as raised:
        signing(entra).answer(challenge(entra), "team/a", push=False)
    assert "federated credential" in raised.value.fix
