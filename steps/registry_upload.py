"""A blob into a registry: streamed once, hashed on the way, whole or not at all.

``POST`` opens an upload, one ``PATCH`` streams the bytes while they are hashed, ``PUT`` names the digest that came out
(distribution-spec 1.1, pushing a blob in chunks). So memory does not grow with the blob and the file is read once. A
proxy that limits bodies answers 413: then the bytes go in pieces, ever smaller. An upload that is cut begins anew, as
with skopeo and docker: registries void the session of a torn PATCH.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import requests

from presets.errors import LATER, DataError, NotPermittedError, TryAgainError
from steps.backoff import ATTEMPTS, PASSING, pause
from steps.registry_client import FAULTS, Repository
from steps.store import digest_of_file

READ_BYTES = 1 << 20
PIECES_BYTES = (64 << 20, 16 << 20, 4 << 20, 1 << 20)  # what is tried where a body is too large
OCTETS = {"Content-Type": "application/octet-stream"}


@dataclass(frozen=True, slots=True)
class Uploaded:
    """A blob that the registry has."""

    digest: str
    size: int


class _TooLarge(Exception):
    """Something between here and the registry limits the size of a body."""


def upload(at: Repository, source: Path, digest: str | None = None, also_in: str | None = None) -> Uploaded:
    """Upload the file; one that is there already, or in the repository ``also_in``, moves no bytes.

    ``digest`` is the file's where it is known; else nothing can be asked beforehand. A known one is also named with
    the bytes themselves, in one ``PUT``, which registries take faster: they hash once and keep no state between.

    Raises:
        DataError: the file has other bytes than ``digest`` stands for, or the registry wants no body of any size.
        KaiflowError: the registry refuses, or does not answer.
    """
    size = source.stat().st_size
    if digest is not None and (has_blob(at, digest) or (also_in and mount(at, digest, also_in))):
        return Uploaded(digest, size)
    pieces: int | None = None
    for attempt in range(ATTEMPTS + len(PIECES_BYTES)):
        try:
            found = _send(at, source, pieces) if pieces or not digest else _send_at_once(at, source, digest)
        except _TooLarge:
            smaller = [n for n in PIECES_BYTES if pieces is None or n < pieces]
            if not smaller:
                raise DataError(
                    "RegistryRefused", f"{at.shown} takes no body of even {PIECES_BYTES[-1] >> 20} MiB (413).",
                    fix="Raise the limit of the proxy before the registry (nginx: client_max_body_size).",
                ) from None  # fmt: skip
            pieces = smaller[0]
            continue
        except _Cut as cut:
            if attempt + 1 >= ATTEMPTS:
                raise TryAgainError(
                    "RegistryUnreachable", f"{at.shown} broke the upload off again and again ({cut}).",
                    fix=LATER,
                ) from cut  # fmt: skip
            pause(attempt, cut.retry_after)
            continue
        if digest is not None and found != digest:
            raise _other_bytes(source, digest)
        return Uploaded(found, size)
    raise AssertionError("unreachable")


def has_blob(at: Repository, digest: str) -> bool:
    """Whether the repository has the blob."""
    with at.asked(f"{at.base}/blobs/{digest}", method="HEAD", good=(200, 404)) as answer:
        return answer.status_code == 200


class _Cut(Exception):
    """The upload broke off; it may work anew."""

    def __init__(self, why: str, retry_after: str = "") -> None:
        super().__init__(why)
        self.retry_after = retry_after


def mount(at: Repository, digest: str, repository: str) -> bool:
    """Take the blob over from another repository of the registry; False where that cannot be."""
    url = f"{at.base}/blobs/uploads/?mount={digest}&from={repository}"
    try:
        with at.asked(url, method="POST", data=b"", good=(201, 202, 401, 403, 404, 405)) as answer:
            if answer.status_code == 202:
                _given_up(at, answer.headers.get("Location", ""))
            return answer.status_code == 201
    except NotPermittedError:  # there is no token for both: who may not read there sends the blob
        return False


def _given_up(at: Repository, location: str) -> None:
    """Close an upload that is not needed; one that stays open ends by itself."""
    if location:
        try:
            at.ask("DELETE", at.absolute(location)).close()
        except FAULTS:
            return


def _send_at_once(at: Repository, source: Path, digest: str) -> str:
    """Send the file with its digest; the registry refuses bytes of another.

    Raises:
        DataError: it did.
    """
    location = _opened(at)
    with source.open("rb") as reader:
        body = _Body(reader, 0, source.stat().st_size, None)
        answer = _once(at, "PUT", f"{location}{_joint(location)}digest={digest}", OCTETS, lambda: body)
    if answer.status_code == 413:
        raise _TooLarge
    if answer.status_code == 400 and digest_of_file(source) != digest:
        raise _other_bytes(source, digest)
    if answer.status_code == 404:
        raise _Cut("404")
    if answer.status_code != 201:
        raise at.refused(answer)
    return digest


def _opened(at: Repository) -> str:
    """Open an upload; return where it goes."""
    with at.asked(f"{at.base}/blobs/uploads/", method="POST", data=b"", good=(202,)) as opened:
        location = opened.headers.get("Location")
    if not location:
        raise DataError(
            "RegistryRefused", f"{at.shown} opens an upload and does not say where.",
            fix="Look for a proxy that takes headers away.",
        )  # fmt: skip
    return at.absolute(location)


def _joint(location: str) -> str:
    return "&" if "?" in location else "?"


def _other_bytes(source: Path, digest: str) -> DataError:
    return DataError(
        "DigestMismatch", f"{source.name} is no longer what {digest} stands for.", fix="Run the step again."
    )


def _send(at: Repository, source: Path, pieces: int | None) -> str:
    """Send the file in one upload; return its digest."""
    location = _opened(at)
    size, hasher = source.stat().st_size, hashlib.sha256()
    with source.open("rb") as reader:
        start = 0
        while start < size or start == 0:
            length = size - start if pieces is None else min(pieces, size - start)
            headers = {**OCTETS, "Content-Range": f"{start}-{start + length - 1}"} if pieces else OCTETS
            location = _patch(at, location, _Body(reader, start, length, hasher), headers)
            start += length
            if length == 0:
                break
    digest = f"sha256:{hasher.hexdigest()}"
    answer = _once(at, "PUT", f"{location}{_joint(location)}digest={digest}", OCTETS, b"")
    if answer.status_code != 201:
        raise at.refused(answer)
    return digest


class _Body:
    """Some bytes of a file as the body of a request, hashed when they are sent for the first time."""

    def __init__(self, reader: BinaryIO, start: int, length: int, hasher: Any) -> None:  # noqa: ANN401
        self._reader, self._start, self._length, self._hasher = reader, start, length, hasher
        self._hashed = 0

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[bytes]:
        self._reader.seek(self._start)
        sent = 0
        while sent < self._length and (chunk := self._reader.read(min(READ_BYTES, self._length - sent))):
            sent += len(chunk)
            if self._hasher is not None and sent > self._hashed:
                self._hasher.update(chunk)
                self._hashed = sent
            yield chunk


def _patch(at: Repository, location: str, body: _Body, headers: dict[str, str]) -> str:
    answer = _once(at, "PATCH", location, headers, lambda: body)
    if answer.status_code == 413:
        raise _TooLarge
    if answer.status_code in (404, 416):  # the session is gone: torn before, or expired
        raise _Cut(str(answer.status_code))
    if answer.status_code != 202:
        raise at.refused(answer)
    return at.absolute(answer.headers.get("Location", location))


def _once(at: Repository, method: str, url: str, headers: dict[str, str], data: Any) -> requests.Response:  # noqa: ANN401
    """Send one request of an upload; what passes ends the upload, and a new one may work."""
    try:
        with at.ask(method, url, headers, data) as answer:
            _ = answer.content  # small: the registry's word, if it has one
    except FAULTS as error:
        raise _Cut(type(error).__name__) from error
    if answer.status_code in PASSING:
        raise _Cut(str(answer.status_code), answer.headers.get("Retry-After", ""))
    return answer
