"""How a registry is told who asks: Basic, or a bearer token for one repository and one kind of access.

The distribution project's token protocol, https://distribution.github.io/distribution/spec/auth/. oras-py sends
the first token for every later request, whatever it was given for, and one registry's password to the next one:
so a client is made per registry, and tokens are kept per scope.
"""

import re
import time
from typing import Any

import requests

from presets.errors import LATER, NotPermittedError, TryAgainError
from steps import azure_registry
from steps.backoff import ATTEMPTS, PASSING, pause
from steps.docker_config import Credentials, DockerConfig

EARLY_SECONDS = 15  # a token is not used in its last seconds, or the last quarter of a short life
DEFAULT_SECONDS = 60  # what a token lasts that does not say
TIMEOUT_SECONDS = (10, 60)
_CHALLENGE = re.compile(
    r'(?P<name>[\w-]+)\s*=\s*(?:"(?P<quoted>(?:[^"\\]|\\.)*)"|(?P<plain>[^\s,"]+))|(?P<scheme>[A-Za-z][\w-]*)(?=\s|,|$)'
)


class RegistryAuth:
    """Answers the challenges of one registry."""

    def __init__(
        self, registry: str, config: DockerConfig, session: requests.Session, *, plain: bool, verify: bool | str
    ) -> None:
        self._registry, self._config, self._session = registry, config, session
        self._plain, self._verify = plain, verify
        self._tokens: dict[str, tuple[str, float]] = {}
        self._identity: Credentials | None = None  # a workload identity's, exchanged
        self._basic = False
        self._bearer = ""  # out of docker's config, shown as it is

    def header(self, repository: str, *, push: bool, beside: str = "") -> dict[str, str]:
        """Return the Authorization header for a request, empty before the first challenge.

        ``beside`` is the repository that a mount takes a blob from.
        """
        if self._basic:
            return self._basic_header(repository)
        if self._bearer:
            return {"Authorization": f"Bearer {self._bearer}"}
        for scope in (_scope(repository, push, beside), *(() if push else (_scope(repository, True),))):
            token, until = self._tokens.get(scope, ("", 0.0))
            if until > time.monotonic():
                return {"Authorization": f"Bearer {token}"}
        return {}

    def answer(self, challenge: str, repository: str, *, push: bool, beside: str = "") -> dict[str, str]:
        """Return the header that answers ``WWW-Authenticate: challenge``.

        Raises:
            NotPermittedError: there are no credentials, or they are not accepted.
            TryAgainError: the token service does not answer.
        """
        asked = challenges(challenge)
        parts = asked.get("bearer", {})
        schemes = ("https://", "http://") if self._plain else ("https://",)  # no password leaves TLS
        if not parts.get("realm", "").startswith(schemes):
            if "basic" not in asked:
                raise self._denied(repository, "asks for a way to sign in that is not known here")
            self._basic = True
            header = self._basic_header(repository)
            if not header:
                raise self._denied(repository, "asks for a user and a password, and there is none for it")
            return header
        credentials = self._config.find(self._registry, repository)
        if credentials and credentials.registry_token:
            self._bearer = credentials.registry_token
            return {"Authorization": f"Bearer {self._bearer}"}
        scope = _scope(repository, push, beside)
        token, seconds = self._token(parts, repository, scope)
        self._tokens[scope] = (token, time.monotonic() + seconds - min(EARLY_SECONDS, seconds / 4))
        return {"Authorization": f"Bearer {token}"}

    def _basic_header(self, repository: str) -> dict[str, str]:
        credentials = self._config.find(self._registry, repository)
        return {"Authorization": f"Basic {credentials.basic}"} if credentials and credentials.basic else {}

    def _token(self, challenge: dict[str, str], repository: str, scope: str) -> tuple[str, float]:
        query = {"service": challenge.get("service", ""), "scope": scope}
        named, held = self._config.find(self._registry, repository), self._identity
        response = self._asked(challenge["realm"], query, named or self._workload_identity())
        if response.status_code in (400, 401) and named is None and held is not None:  # it has expired, in a long run
            self._identity = None
            response = self._asked(challenge["realm"], query, self._workload_identity())
        if response.status_code != 200:
            raise self._denied(repository, f"does not accept the credentials ({response.status_code})")
        try:
            body: dict[str, Any] = response.json()
            token = body.get("token") or body.get("access_token")
            seconds = float(body.get("expires_in") or DEFAULT_SECONDS)
        except (ValueError, TypeError, AttributeError):  # whatever it is, it is no token
            token, seconds = None, 0.0
        if not token:
            raise self._denied(repository, "gives no token")
        return str(token), seconds

    def _asked(self, realm: str, query: dict[str, str], credentials: Credentials | None) -> requests.Response:
        """Return the token service's answer; it is asked again while it cannot.

        Raises:
            TryAgainError: it cannot for too long.
        """
        said = ""
        for attempt in range(ATTEMPTS):
            wait = ""
            try:
                response = self._ask(realm, query, credentials)
                if response.status_code not in PASSING:
                    return response
                said, wait = f"answered {response.status_code}", response.headers.get("Retry-After", "")
            except requests.RequestException as error:
                said = f"does not answer ({type(error).__name__})"
            if attempt + 1 < ATTEMPTS:
                pause(attempt, wait)
        what = f"The token service of {self._registry} {said}."
        raise TryAgainError("RegistryUnreachable", what, fix=LATER)

    def _workload_identity(self) -> Credentials | None:
        if self._identity is None and azure_registry.signs_in(self._registry):
            self._identity = azure_registry.exchanged(self._registry, self._session, self._verify)
        return self._identity

    def _ask(self, realm: str, query: dict[str, str], credentials: Credentials | None) -> requests.Response:
        if credentials and credentials.identity_token:
            form = {**query, "grant_type": "refresh_token", "refresh_token": credentials.identity_token}
            return self._session.post(realm, data=form, timeout=TIMEOUT_SECONDS, verify=self._verify)
        basic = credentials.basic if credentials else None
        headers = {"Authorization": f"Basic {basic}"} if basic else {}
        asked = {**query, "scope": query["scope"].split(" ")}  # each in a parameter of its own
        return self._session.get(realm, params=asked, headers=headers, timeout=TIMEOUT_SECONDS, verify=self._verify)

    def _denied(self, repository: str, why: str) -> NotPermittedError:
        return NotPermittedError(
            "RegistryForbidden",
            f"{self._registry} {why} ({repository}).",
            fix="Name a Secret of type kubernetes.io/dockerconfigjson that has an entry for this registry.",
        )


def challenges(header: str) -> dict[str, dict[str, str]]:
    """Return scheme -> its parameters, both in lower case, of ``WWW-Authenticate`` (RFC 9110, 11.6.1)."""
    found: dict[str, dict[str, str]] = {}
    scheme = ""
    for match in _CHALLENGE.finditer(header):
        if match["name"]:
            value = match["quoted"] if match["quoted"] is not None else match["plain"]
            found.setdefault(scheme, {})[match["name"].lower()] = value
        else:
            scheme = match["scheme"].lower()
            found.setdefault(scheme, {})
    return found


def _scope(repository: str, push: bool, beside: str = "") -> str:
    own = f"repository:{repository}:{'pull,push' if push else 'pull'}"
    return f"{own} repository:{beside}:pull" if beside else own
