"""One file over http(s), whole or not at all: the right name, the right size, the right digest, or an error.

Where the server can send ranges and names the version of what it sends, the parts come over several
connections and a killed download goes on where it stopped (:mod:`steps.transfer`); else one stream, from the
start. The file appears under its name only when it is complete. What the server said of its version is kept
beside it, so that the next download is a question with the answer 304.
"""

import hashlib
import os
import re
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from urllib.parse import urldefrag, urlsplit

import urllib3

from presets.addresses import without_query
from presets.errors import LATER, DataError, TryAgainError, UnavailableError
from presets.os_errors import explain_os_error
from steps import known_file, logs, redirects
from steps.connections import Guard, guarded_pool
from steps.journal import Journal
from steps.limits import check_size
from steps.redirects import Answer
from steps.response_headers import content_length, content_range, file_name, strong_validator
from steps.transfer import (
    CHUNK_BYTES,
    CONNECTIONS,
    FAULTS,
    FileChanged,
    Remote,
    Stalled,
    Transfer,
    part_bytes,
)

ATTEMPTS = 4
BACKOFF_SECONDS = 0.5
RESERVE_BYTES = 64 << 20  # left free on the disk
CHECKSUM = re.compile(r"sha256[=:]([0-9a-fA-F]{64})")
RANGE_NOT_SATISFIABLE = 416


@dataclass(frozen=True, slots=True)
class Downloaded:
    """A complete file."""

    path: Path
    sha256: str


def download(
    url: str,
    folder: Path,
    guard: Guard,
    max_bytes: int,
    progress: Callable[[int, int], None],
) -> Downloaded:
    """Return the file of ``url`` in ``folder``, from the last time when it has not changed.

    A fragment ``#sha256=…`` is the digest that the file must have.

    Raises:
        DataError: the server says the file is not there, it is too large, its digest is another; a hop is forbidden.
        NotPermittedError: the server wants credentials.
        UnavailableError: the disk is too small for it.
        TryAgainError: the server does not answer, or says that it cannot now.
    """
    folder.mkdir(parents=True, exist_ok=True)
    pool = guarded_pool(guard, CONNECTIONS)
    attempt = _Attempt(pool, urldefrag(url).url, folder, max_bytes, progress)
    try:
        found = _insist(attempt)
    except UnicodeError as error:
        raise DataError("AddressForbidden", f"{without_query(url)} names a host that cannot be.", fix="") from error
    finally:
        pool.clear()
    _check_digest(found, url, folder)
    return found


def expected_sha256(url: str) -> str | None:
    """Return the digest that the fragment of ``url`` asks for, None when it asks for none."""
    found = CHECKSUM.fullmatch(urlsplit(url).fragment)
    return found[1].lower() if found else None


def _insist(attempt: "_Attempt") -> Downloaded:
    for number in range(1, ATTEMPTS + 1):
        try:
            return attempt.run()
        except FileChanged as error:
            if number == ATTEMPTS:
                raise TryAgainError(
                    "DatasetChanging",
                    f"{attempt.shown} changes while it is read.",
                    fix="Wait until it is written, or name a version that stays.",
                ) from error
        except (*FAULTS, Stalled) as error:
            if isinstance(error, OSError) and explain_os_error(error):
                raise
            if number == ATTEMPTS:
                raise _unreachable(attempt.shown, error) from error
        except TryAgainError:
            if number == ATTEMPTS:
                raise
        time.sleep(BACKOFF_SECONDS * 2 ** (number - 1))
    raise AssertionError("unreachable")


def _unreachable(shown: str, error: Exception) -> TryAgainError:
    if isinstance(error, Stalled | urllib3.exceptions.ProtocolError | HTTPException):
        why = error if isinstance(error, Stalled) else f"the connection broke off ({type(error).__name__})"
        return TryAgainError("DatasetCut", f"{shown}: {why}.", fix=LATER)
    return TryAgainError(
        "DatasetUnreachable",
        f"{shown} does not answer ({type(error).__name__}).",
        fix="Check the host name and the network, then run it again.",
    )


@dataclass(frozen=True, slots=True)
class _Attempt:
    """One try to get the file."""

    pool: urllib3.PoolManager
    url: str
    folder: Path
    max_bytes: int
    progress: Callable[[int, int], None]

    @property
    def shown(self) -> str:
        return without_query(self.url)

    def run(self) -> Downloaded:
        """Ask for the whole file; take it in parts when the answer allows it."""
        known = known_file.known(self.folder, self.url)
        answer = redirects.get(self.pool, self.url, {"Range": "bytes=0-", **known_file.conditions(known)})
        if answer.response.status == RANGE_NOT_SATISFIABLE:  # an empty file has no byte 0
            answer.response.close()
            answer = redirects.get(self.pool, self.url, {})
        try:
            if answer.response.status == 304 and known:
                logs.event("not_modified", url=self.shown)
                return Downloaded(self.folder / known["file"], known["sha256"])
            redirects.check_status(answer.response.status, self.url)
            found = self._save(answer)
        finally:
            answer.response.close()
        known_file.remember(found.path, found.sha256, answer.response, self.url, self.folder)
        logs.event("downloaded", url=self.shown, bytes=found.path.stat().st_size, file=found.path.name)
        return found

    def _save(self, answer: Answer) -> Downloaded:
        response = answer.response
        path = self.folder / file_name(self.url, response.headers.get("Content-Disposition", ""))
        partial = response.status == 206
        start, size = content_range(response) if partial else (0, content_length(response))
        if partial and start != 0:
            raise TryAgainError(
                "DatasetCut", f"{self.shown} sent another range than the one asked for.", fix="Check the server."
            )
        part = path.with_name(f".{path.name}.part")
        self._check_room(size, part)
        validator = strong_validator(response)
        if partial and validator and size:
            digest = self._in_parts(Remote(self.url, answer.url, size, validator), answer, part)
        else:
            digest = self._in_one_stream(response, size, part)
        part.replace(path)
        return Downloaded(path, digest)

    def _in_parts(self, remote: Remote, answer: Answer, part: Path) -> str:
        path = part.with_suffix(".journal")
        if not part.exists():
            path.unlink(missing_ok=True)
        journal = Journal.open(path, remote.validator, remote.size_bytes, part_bytes(remote.size_bytes))
        if journal.done:
            logs.event("resumed", url=self.shown, parts=len(journal.done))
        transfer = Transfer(self.pool, remote, part, journal, lambda have: self.progress(have, remote.size_bytes))
        digest = transfer.run(answer)
        journal.remove()
        return digest

    def _in_one_stream(self, response: urllib3.BaseHTTPResponse, size: int | None, part: Path) -> str:
        done, digest = 0, hashlib.sha256()
        with part.open("wb") as writer:
            while chunk := response.read(CHUNK_BYTES):
                done += len(chunk)
                check_size(self.shown, done, self.max_bytes)
                writer.write(chunk)
                digest.update(chunk)
                self.progress(done, size or done + 1)
            writer.flush()
            os.fsync(writer.fileno())
        if size is not None and done != size:
            raise Stalled(f"the server sent {done} of {size} bytes")
        return digest.hexdigest()

    def _check_room(self, size: int | None, part: Path) -> None:
        if size is None:
            return
        check_size(self.shown, size, self.max_bytes)
        have = part.stat().st_blocks * 512 if part.exists() else 0
        free = shutil.disk_usage(self.folder).free
        if size - have > free - RESERVE_BYTES:
            raise UnavailableError(
                "DiskFull",
                f"{self.shown} has {size >> 20} MiB, and {self.folder} has {free >> 20} MiB free.",
                fix="Free some space, or choose another disk.",
            )


def _check_digest(found: Downloaded, url: str, folder: Path) -> None:
    expected = expected_sha256(url)
    if expected is None or expected == found.sha256:
        return
    found.path.unlink()
    known_file.forget(folder)
    raise DataError(
        "ChecksumMismatch",
        f"{without_query(url)} has the sha256 {found.sha256}, not {expected}.",
        fix="Correct the fragment of the URL, or the file on the server.",
    )
