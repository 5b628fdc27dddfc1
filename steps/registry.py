"""A registry: manifests and blobs by digest, every byte verified.  The one module that oras-py is used in.

oras-py gives the session and its one seam for requests; how they are signed, repeated and checked is ours: it sends the
first token for every later request, does not verify what it downloads, and does not ask again when it should.
"""

import hashlib
import json
import random
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import oras.provider
import requests

from presets.addresses import is_private
from presets.errors import DataError, KaiflowError, NotPermittedError, TryAgainError
from presets.names import ImageReference, parse_image
from steps.docker_config import DOCKER_HUB, DockerConfig
from steps.registry_auth import RegistryAuth

INDEX_TYPES = ("application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json")
MANIFEST_TYPES = ("application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json")
ATTEMPTS = 5
BACKOFF_SECONDS = 0.5
LONGEST_WAIT_SECONDS = 60.0
TIMEOUT_SECONDS = (10, 120)
CHUNK_BYTES = 1 << 20
MANIFEST_BYTES = 4 << 20
PASSING = (408, 429, 500, 502, 503, 504)
FAULTS = (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError)


class _Oras(oras.provider.Registry):  # type: ignore[misc]  # oras-py has no types
    """oras-py's client with our way to ask."""

    def __init__(self, registry: str, config: DockerConfig, *, plain: bool, verify: bool | str) -> None:
        super().__init__(hostname=registry, insecure=plain, tls_verify=verify)
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
        """Send a request, signed; a challenge is answered once."""
        found = re.search(r"/v2/(.+?)/(?:blobs|manifests|tags|referrers)(?:/|$)", url)
        repository, push = found[1] if found else "", method in ("POST", "PUT", "PATCH", "DELETE")
        options: dict[str, Any] = {
            "data": data, "json": json, "stream": stream, "verify": self._tls_verify, "timeout": TIMEOUT_SECONDS,
        }  # fmt: skip
        signed = {**(headers or {}), **self.signing.header(repository, push=push)}
        response: requests.Response = self.session.request(method, url, headers=signed, **options)
        challenge = response.headers.get("WWW-Authenticate", "")
        if response.status_code != 401 or not challenge:
            return response
        response.close()
        signed |= self.signing.answer(challenge, repository, push=push)
        again: requests.Response = self.session.request(method, url, headers=signed, **options)
        return again


class Registry:
    """Artifacts of one repository."""

    def __init__(self, image: str, config: DockerConfig, *, verify: bool | str = True) -> None:
        reference = parse_image(image)
        if reference is None:
            raise DataError(
                "ImageInvalid", f"{image!r} is not an image reference.", fix="Write registry/repository:tag."
            )
        host, self.repository = _hub_names(reference)
        self.reference = reference.digest or reference.tag or "latest"
        self.shown = f"{reference.registry or 'docker.io'}/{self.repository}"
        plain = is_private(host.rpartition(":")[0] or host) and host.split(":")[0] in ("localhost", "127.0.0.1", "[")
        self._client = _Oras(host, config, plain=plain, verify=verify)
        self._base = f"{self._client.prefix}://{host}/v2/{self.repository}"

    def __enter__(self) -> "Registry":
        return self

    def __exit__(self, *_: object) -> None:
        self._client.session.close()

    def manifest(self, reference: str | None = None) -> tuple[str, dict[str, Any]]:
        """Return (digest, manifest) of the image; of an index that for linux/amd64, or its only one.

        Raises:
            DataError: there is no such image, or what comes is not what its digest says.
        """
        wanted = reference or self.reference
        data = self._small(f"{self._base}/manifests/{wanted}", ", ".join((*MANIFEST_TYPES, *INDEX_TYPES)))
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        if ":" in wanted and wanted != digest:
            raise _corrupt(self.shown, wanted)
        try:
            body = json.loads(data)
        except ValueError as error:
            raise _corrupt(self.shown, wanted) from error
        if isinstance(body, dict) and isinstance(body.get("manifests"), list):
            return self.manifest(_for_this_platform(body["manifests"], self.shown))
        if not isinstance(body, dict) or not isinstance(body.get("layers"), list):
            raise DataError(
                "ImageInvalid", f"{self.shown} has a manifest without layers.", fix="Push it again with oras."
            )
        return digest, body

    def blob_to(self, digest: str, size_bytes: int, path: Path) -> None:
        """Write a blob to ``path``, verified, whole or not at all; goes on where a cut connection stopped.

        Raises:
            DataError: the bytes are not those of the digest.
            TryAgainError: the registry does not send them.
        """
        part = path.with_name(f".{path.name}.part")
        hasher, have = hashlib.sha256(), 0
        with part.open("wb") as writer:
            for attempt in range(ATTEMPTS):
                try:
                    with self._asked(
                        f"{self._base}/blobs/{digest}", {"Range": f"bytes={have}-"} if have else {}
                    ) as answer:
                        if have and answer.status_code == 200:
                            writer.seek(0)
                            writer.truncate()
                            hasher, have = hashlib.sha256(), 0
                        for chunk in answer.iter_content(CHUNK_BYTES):
                            writer.write(chunk)
                            hasher.update(chunk)
                            have += len(chunk)
                            if have > size_bytes:
                                raise _corrupt(self.shown, digest)
                    if have == size_bytes:
                        break
                except FAULTS:
                    _pause(attempt)
        if have != size_bytes:
            raise TryAgainError(
                "RegistryUnreachable",
                f"{self.shown} sent {have} of {size_bytes} bytes of a blob.",
                fix="The step tries again.",
            )
        if f"sha256:{hasher.hexdigest()}" != digest:
            part.unlink()
            raise _corrupt(self.shown, digest)
        part.replace(path)

    def _small(self, url: str, accept: str) -> bytes:
        for attempt in range(ATTEMPTS):
            try:
                with self._asked(url, {"Accept": accept}) as answer:
                    data = answer.raw.read(MANIFEST_BYTES + 1, decode_content=True)
            except FAULTS as error:
                if attempt + 1 == ATTEMPTS:
                    raise self._unreachable(error) from error
                _pause(attempt)
                continue
            if len(data) > MANIFEST_BYTES:
                raise DataError(
                    "ImageInvalid", f"The manifest of {self.shown} is larger than 4 MiB.", fix="Push it again."
                )
            return bytes(data)
        raise AssertionError("unreachable")

    @contextmanager
    def _asked(self, url: str, headers: Mapping[str, str]) -> Iterator[requests.Response]:
        """Yield a good answer; ask again while the registry says that it cannot now."""
        for attempt in range(ATTEMPTS):
            try:
                response = self._client.do_request(url, headers=headers, stream=True)
            except requests.exceptions.SSLError as error:
                raise self._unreachable(error) from error
            except FAULTS as error:
                if attempt + 1 == ATTEMPTS:
                    raise self._unreachable(error) from error
                _pause(attempt)
                continue
            if response.status_code in PASSING and attempt + 1 < ATTEMPTS:
                response.close()
                _pause(attempt, response.headers.get("Retry-After", ""))
                continue
            try:
                if response.status_code not in (200, 206):
                    raise self._refused(response)
                yield response
            finally:
                response.close()
            return

    def _unreachable(self, error: Exception) -> TryAgainError:
        return TryAgainError(
            "RegistryUnreachable",
            f"{self.shown} does not answer ({type(error).__name__}).",
            fix="Check name and network.",
        )

    def _refused(self, response: requests.Response) -> KaiflowError:
        code = _error_code(response)
        what = f"{self.shown} answered {response.status_code}{f' {code}' if code else ''}."
        if response.status_code in (401, 403):
            return NotPermittedError(
                "RegistryForbidden", what, fix="Name a pull secret whose user may read the repository."
            )
        if response.status_code == 404:
            return DataError("ImageNotFound", what, fix="Check repository and tag.")
        if response.status_code in PASSING:
            return TryAgainError("RegistryUnreachable", what, fix="The step tries again by itself.")
        return DataError("RegistryRefused", what, fix="Ask the registry's administrator.")


def _hub_names(reference: ImageReference) -> tuple[str, str]:
    """Docker Hub is called docker.io and found elsewhere; its own images lie in ``library/``."""
    if reference.registry and reference.registry not in DOCKER_HUB:
        return reference.registry, reference.repository
    path = reference.repository
    return "registry-1.docker.io", path if "/" in path else f"library/{path}"


def _for_this_platform(manifests: list[Any], shown: str) -> str:
    images = [m for m in manifests if isinstance(m, dict) and isinstance(m.get("digest"), str)]
    images = [m for m in images if (m.get("platform") or {}).get("os") != "unknown"]  # buildkit's attestations
    wanted = [m for m in images if (m.get("platform") or {}).get("architecture") == "amd64"]
    if not wanted and len(images) != 1:
        raise DataError("ImageInvalid", f"{shown} has no image for linux/amd64.", fix="Name the digest of one image.")
    return str((wanted or images)[0]["digest"])


def _corrupt(shown: str, digest: str) -> DataError:
    return DataError(
        "DigestMismatch", f"{shown} sent other bytes than {digest} stands for.", fix="Push the image again."
    )


def _error_code(response: requests.Response) -> str:
    """Return the registry's own word for the error: a short constant such as MANIFEST_UNKNOWN."""
    try:
        code = response.json()["errors"][0]["code"]
    except (ValueError, LookupError, TypeError, requests.RequestException):
        return ""
    return code if isinstance(code, str) and re.fullmatch(r"[A-Z_]{1,40}", code) else ""


def _pause(attempt: int, retry_after: str = "") -> None:
    wait = float(retry_after) if retry_after.isdecimal() else BACKOFF_SECONDS * 2**attempt * random.uniform(0.5, 1.5)  # noqa: S311
    time.sleep(min(LONGEST_WAIT_SECONDS, wait))
