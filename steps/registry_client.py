"""One repository of a registry, asked: repeated while it cannot, its refusals explained."""

import os
import re
import socket
import ssl
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import requests
import urllib3

from presets.errors import LATER, DataError, KaiflowError, NotPermittedError, TryAgainError
from presets.names import ImageReference, parse_image
from steps.backoff import ATTEMPTS, PASSING, pause
from steps.contract import PLAIN_REGISTRIES
from steps.docker_config import DOCKER_HUB, DockerConfig
from steps.registry_session import OrasClient

MANIFEST_BYTES = 4 << 20
CHUNK_BYTES = 1 << 20
SLOW_SECONDS, SLOW_BYTES = 30.0, 30 << 10  # less than so much in so long is no download
LONGEST_WORDS = 300
LOOPBACK = ("localhost", "127.0.0.1", "::1")
FAULTS = (requests.RequestException, urllib3.exceptions.HTTPError)  # of a connection, or of a body that is torn


class Repository:
    """A repository, and the reference that the image's name ends with."""

    def __init__(self, image: str, config: DockerConfig, *, verify: bool | str = True) -> None:
        reference = parse_image(image)
        if reference is None:
            raise DataError(
                "ImageInvalid", f"{image!r} is not an image reference.", fix="Write registry/repository:tag."
            )
        host, self.name = _hub_names(reference)
        self.reference = reference.digest or reference.tag or "latest"
        self.shown = f"{reference.registry or 'docker.io'}/{self.name}"
        plain = host in _plain_registries() or (_is_loopback(host) and not _speaks_tls(host))
        self._client = OrasClient(host, self.name, config, plain=plain, verify=verify)
        self.root = f"{self._client.prefix}://{host}"
        self.base = f"{self.root}/v2/{self.name}"

    def close(self) -> None:
        """Close the connections."""
        self._client.session.close()

    def absolute(self, location: str) -> str:
        """Return the address that a Location header means.

        A registry behind a proxy that ends TLS may take itself for one without: what is its own stays behind TLS.
        """
        secure = self.root.replace("https://", "http://", 1)
        if self.root != secure and location.startswith(f"{secure}/"):
            return f"{self.root}{location.removeprefix(secure)}"
        return location if location.startswith(("http://", "https://")) else f"{self.root}{location}"

    def ask(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str] | None = None,
        data: Any = None,  # noqa: ANN401  (bytes, or a function that makes the body anew)
    ) -> requests.Response:
        """Send one request, once; whatever comes is the caller's to judge."""
        response: requests.Response = self._client.do_request(url, method, data=data, headers=headers, stream=True)
        return response

    def small(self, url: str, accept: str) -> bytes:
        """Return a small body, such as a manifest.

        Raises:
            DataError: there is none, or it is larger than 4 MiB.
        """
        for attempt in range(ATTEMPTS):
            try:
                with self.asked(url, {"Accept": accept}) as answer:
                    data = answer.raw.read(MANIFEST_BYTES + 1, decode_content=True)
            except FAULTS as error:
                if attempt + 1 == ATTEMPTS:
                    raise self.unreachable(error) from error
                pause(attempt)
                continue
            if len(data) > MANIFEST_BYTES:
                raise DataError(
                    "ImageInvalid", f"The manifest of {self.shown} is larger than 4 MiB.", fix="Push it again."
                )
            return bytes(data)
        raise AssertionError("unreachable")

    def page(self, url: str, accept: str, *, strict: bool) -> tuple[bytes | None, str]:
        """Return (body, address of the next page) of a list, None for one that is not there.

        ``strict``: what comes as another type than ``accept`` is none either.

        Raises:
            KaiflowError: the registry refuses, or does not answer.
        """
        for attempt in range(ATTEMPTS):
            try:
                with self.asked(url, {"Accept": accept}, good=(200, 404, 405)) as answer:
                    following = answer.links.get("next", {}).get("url", "")
                    fits = not strict or answer.headers.get("Content-Type", "").startswith(accept)
                    data = answer.content if answer.status_code == 200 and fits else None
                return data, self.absolute(following) if following else ""
            except FAULTS as error:
                if attempt + 1 == ATTEMPTS:
                    raise self.unreachable(error) from error
                pause(attempt)
        raise AssertionError("unreachable")

    @contextmanager
    def asked(
        self,
        url: str,
        headers: Mapping[str, str] | None = None,
        *,
        method: str = "GET",
        data: bytes | None = None,
        good: tuple[int, ...] = (200, 206),
    ) -> Iterator[requests.Response]:
        """Yield a good answer; ask again while the registry says that it cannot now.

        Raises:
            KaiflowError: it refuses, or does not answer.
        """
        for attempt in range(ATTEMPTS):
            try:
                response = self.ask(method, url, headers, data)
            except requests.exceptions.SSLError as error:
                raise self.unreachable(error) from error
            except FAULTS as error:
                if attempt + 1 == ATTEMPTS:
                    raise self.unreachable(error) from error
                pause(attempt)
                continue
            if response.status_code in PASSING and attempt + 1 < ATTEMPTS:
                response.close()
                pause(attempt, response.headers.get("Retry-After", ""))
                continue
            try:
                if response.status_code not in good:
                    raise self.refused(response)
                yield response
            finally:
                response.close()
            return

    def unreachable(self, error: Exception) -> TryAgainError:
        """Return the error of a registry that does not answer."""
        return TryAgainError(
            "RegistryUnreachable",
            f"{self.shown} does not answer ({type(error).__name__}).",
            fix="Check name and network.",
        )

    def refused(self, response: requests.Response) -> KaiflowError:
        """Return the error that an answer stands for: its status, the registry's own word, the remedy."""
        said = _error_words(response)
        what = f"{self.shown} answered {response.status_code}{f' {said}' if said else ''}."
        if response.status_code in (401, 403):
            writes = response.request.method not in ("GET", "HEAD")
            secret = "an imagePushSecret whose user may write to" if writes else "a pull secret whose user may read"
            return NotPermittedError("RegistryForbidden", what, fix=f"Name {secret} the repository.")
        if response.status_code == 404:
            return DataError("ImageNotFound", what, fix="Check repository and tag.")
        if response.status_code in PASSING:
            return TryAgainError("RegistryUnreachable", what, fix=LATER)
        return DataError("RegistryRefused", what, fix="Ask the registry's administrator.")


def _is_loopback(host: str) -> bool:
    return host.rpartition(":")[0].strip("[]") in LOOPBACK or host in LOOPBACK


def _plain_registries() -> list[str]:
    """Return the registries of this cluster that are known to have no TLS, as whoever installed kaiflow says."""
    return [host for host in os.environ.get(PLAIN_REGISTRIES, "").split(",") if host]


def _speaks_tls(host: str) -> bool:
    """Whether a registry on this machine wants TLS; as docker, which asks there in plain text where it does not."""
    name, _, port = host.rpartition(":") if ":" in host else (host, "", "443")
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # only whether; who it is, is checked later
    try:
        with (
            socket.create_connection((name.strip("[]"), int(port)), timeout=2) as connection,
            context.wrap_socket(connection),
        ):
            return True
    except (OSError, ValueError):
        return False


def _hub_names(reference: ImageReference) -> tuple[str, str]:
    """Docker Hub is called docker.io and found elsewhere; its own images lie in ``library/``."""
    if reference.registry and reference.registry not in DOCKER_HUB:
        return reference.registry, reference.repository
    path = reference.repository
    return "registry-1.docker.io", path if "/" in path else f"library/{path}"


def _error_words(response: requests.Response) -> str:
    """Return the registry's own words: a constant such as MANIFEST_UNKNOWN, and its message without addresses."""
    try:
        error = response.json()["errors"][0]
        code, message = error["code"], error.get("message", "")
    except (ValueError, LookupError, TypeError, AttributeError, requests.RequestException):
        return ""
    if not isinstance(code, str) or not re.fullmatch(r"[A-Z_]{1,40}", code):
        return ""
    plain = re.sub(r"\S*://\S*", "…", message)[:LONGEST_WORDS] if isinstance(message, str) else ""
    return f"{code} ({' '.join(plain.split()).rstrip('.')})" if plain.strip() else code


def received(answer: requests.Response) -> Iterator[bytes]:
    """Yield a body as it comes.

    Raises:
        requests.Timeout: it comes so slowly that it would take days; a new connection may do better.
    """
    began, window = time.monotonic(), 0
    while chunk := _some(answer):
        yield chunk
        window += len(chunk)
        if time.monotonic() - began >= SLOW_SECONDS:
            if window < SLOW_BYTES:
                raise requests.Timeout(f"{window} bytes in {SLOW_SECONDS} s")
            began, window = time.monotonic(), 0


def _some(answer: requests.Response) -> bytes:
    """Return what one read gives: a full chunk would be waited for, byte by byte."""
    try:
        return bytes(answer.raw.read1(CHUNK_BYTES, decode_content=False))
    except urllib3.exceptions.ReadTimeoutError as error:
        raise requests.Timeout(str(error)) from error
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise requests.ConnectionError(str(error)) from error
