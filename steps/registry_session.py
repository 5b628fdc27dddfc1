"""How requests to a registry are sent and signed.  The one module that oras-py is used in.

It gives the session and its one seam for requests; how they are signed, repeated and checked is ours: it sends the
first token for every later request, does not verify what it downloads, and does not ask again when it should
(docs/upstream/oras-py.md).
"""

from collections.abc import Mapping
from http.cookiejar import DefaultCookiePolicy
from typing import Any
from urllib.parse import parse_qs, urlsplit

import oras.provider
import requests

from presets.errors import KaiflowError
from steps.docker_config import DockerConfig
from steps.registry_auth import RegistryAuth

TIMEOUT_SECONDS = (10, 120)


class _Session(requests.Session):
    """Shows what we show it alone: requests would put what ``~/.netrc`` has for a host above that."""

    def __init__(self) -> None:
        super().__init__()
        self.auth = lambda request: request
        self.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))  # as oras-py: none are kept

    def rebuild_auth(self, prepared_request: requests.PreparedRequest, response: requests.Response) -> None:
        """Take credentials off what is redirected to another host."""
        if "Authorization" in prepared_request.headers and self.should_strip_auth(
            str(response.request.url), str(prepared_request.url)
        ):
            del prepared_request.headers["Authorization"]


class OrasClient(oras.provider.Registry):  # type: ignore[misc]  # oras-py has no types
    """oras-py's client with our way to ask."""

    def __init__(
        self, registry: str, repository: str, config: DockerConfig, *, plain: bool, verify: bool | str
    ) -> None:
        super().__init__(hostname=registry, insecure=plain, tls_verify=verify)
        self.session = _Session()
        self._host, self._scheme, self._repository = registry, "http" if plain else "https", repository
        self.signing = RegistryAuth(registry, config, self.session, plain=plain, verify=verify)

    def do_request(  # the one seam through which oras-py sends everything
        self,
        url: str,
        method: str = "GET",
        data: Any = None,  # noqa: ANN401
        headers: Mapping[str, str] | None = None,
        json: Any = None,  # noqa: ANN401
        stream: bool = False,
    ) -> requests.Response:
        """Send a request, signed; a challenge is answered, and one more: a token may run out as it is fetched."""
        repository, push = self._repository, method in ("POST", "PUT", "PATCH", "DELETE")
        beside = parse_qs(urlsplit(url).query).get("from", [""])[0]  # a mount reads there
        options: dict[str, Any] = {
            "json": json, "stream": stream, "verify": self._tls_verify, "timeout": TIMEOUT_SECONDS,
            "allow_redirects": method in ("GET", "HEAD"),
        }  # fmt: skip

        def body() -> Any:  # noqa: ANN401  (what is streamed is made anew for every try)
            return data() if callable(data) else data

        known = self.signing.header(repository, push=push, beside=beside) if self._is_own(url) else {}
        signed = {**(headers or {}), **known}
        for last in (False, False, True):
            response: requests.Response = self.session.request(method, url, headers=signed, data=body(), **options)
            challenge = response.headers.get("WWW-Authenticate", "")
            if last or response.status_code != 401 or not challenge or not self._is_own(response.url):
                return response
            try:
                answer = self.signing.answer(challenge, repository, push=push, beside=beside)
            except KaiflowError:
                response.close()
                raise
            if answer.items() <= signed.items():  # the same password again
                return response
            response.close()
            signed |= answer
        raise AssertionError("unreachable")

    def _is_own(self, url: str) -> bool:
        """Whether the address is the registry's: a redirect or an upload's place may lead elsewhere, unsigned."""
        parts = urlsplit(url)
        return (parts.scheme, parts.netloc.removesuffix(":443")) == (self._scheme, self._host.removesuffix(":443"))
