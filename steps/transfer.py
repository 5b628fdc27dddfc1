"""The bytes of one file over several connections at once; a part that fails is asked for again, alone.

Which parts are there is kept in a journal beside them, so that a killed download goes on where it stopped.
Parts are only put together when the server vouches that they belong to one version of the file: every
request carries the strong validator of the first answer (``If-Range``, RFC 9110 section 13.1.5).
"""

import hashlib
import os
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

import urllib3

from presets.os_errors import explain_os_error
from steps import redirects
from steps.journal import Journal
from steps.redirects import Answer
from steps.response_headers import content_range, retry_after

MIB = 1 << 20
FIRST_CONNECTIONS, CONNECTIONS = 1, 16  # at first, at most; doubled while a tick brings so much more than before
WIDEN_SECONDS, WORTH_WIDENING = 0.05, 1.2
FAST_BYTES = 256 * MIB  # a second: a connection that brings so much needs no company
PART_BYTES = (4 * MIB, 64 * MIB)  # at least, at most
PARTS = 64
CHUNK_BYTES = MIB
ATTEMPTS = 6  # of one part, with next to no progress between them
BACKOFF_SECONDS = 0.25
SLOW_BYTES, SLOW_SECONDS = 16 * 1024, 30.0  # fewer bytes in so many seconds: the connection is given up
FAULTS = (urllib3.exceptions.HTTPError, HTTPException, OSError)


class FileChanged(Exception):
    """The server now has another version of the file than the one whose parts are here."""


class Stalled(Exception):
    """A connection sends next to nothing, or ends before its part does."""


@dataclass(frozen=True, slots=True)
class Remote:
    """One version of a file on a server."""

    url: str  # as it was asked for
    final_url: str  # behind the redirects
    size_bytes: int
    validator: str  # a strong ETag, or a date


def part_bytes(size_bytes: int) -> int:
    """Return the length of the parts of a file of that size."""
    low, high = PART_BYTES
    return max(low, min(high, size_bytes // PARTS))


class Transfer:
    """Fetches the missing parts of one file into ``path`` and takes its sha256 on the way."""

    def __init__(
        self, pool: urllib3.PoolManager, remote: Remote, path: Path, journal: Journal, progress: Callable[[int], None]
    ) -> None:
        self._pool, self._remote, self._path, self._journal = pool, remote, path, journal
        self._progress = progress
        self._here = remote.final_url
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._missing: deque[int] = deque()
        self._gate = threading.Semaphore(FIRST_CONNECTIONS)
        self._have_bytes = sum(end - start for start, end in map(self._bounds, journal.done))

    def run(self, first: Answer) -> str:
        """Return the sha256 of the whole file; ``first`` is the answer to ``bytes=0-``, read as the first part.

        Raises:
            FileChanged: start over, the server has another version.
            KaiflowError: the server says that it will not send the file.
            Stalled, OSError, HTTPError: no part of it comes any more.
        """
        self._missing.extend(i for i in range(self._parts) if i not in self._journal.done)
        workers = min(CONNECTIONS, max(1, len(self._missing)))
        with self._opened() as file, _prefix_hash(file, self._remote.size_bytes) as prefix:
            prefix.advance(self._contiguous())
            with ThreadPoolExecutor(workers) as threads:
                streams = [first, *[None] * (workers - 1)]
                jobs = [threads.submit(self._work, file, stream, prefix) for stream in streams]
                try:
                    self._widen_until_done(jobs)
                finally:
                    self._stop.set()
                    self._gate.release(workers)
            for job in jobs:
                job.result()
            os.fsync(file)
            return prefix.hexdigest()

    def _widen_until_done(self, jobs: Sequence["Future[None]"]) -> None:
        """Wait for the parts; open more connections for as long as more of them bring more."""
        open_now, before, have = FIRST_CONNECTIONS, 0.0, self._have_bytes
        while wait(jobs, WIDEN_SECONDS, FIRST_EXCEPTION).not_done and not self._stop.is_set():
            rate, have = self._have_bytes - have, self._have_bytes
            fast = rate > open_now * FAST_BYTES * WIDEN_SECONDS
            if open_now < CONNECTIONS and not fast and rate > before * WORTH_WIDENING:
                more = min(open_now, CONNECTIONS - open_now)
                self._gate.release(more)
                open_now, before = open_now + more, rate

    @contextmanager
    def _opened(self) -> Iterator[int]:
        file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            os.ftruncate(file, self._remote.size_bytes)
            yield file
        finally:
            os.close(file)

    @property
    def _parts(self) -> int:
        return -(-self._remote.size_bytes // self._journal.part_bytes)

    def _bounds(self, part: int) -> tuple[int, int]:
        length = self._journal.part_bytes
        return part * length, min((part + 1) * length, self._remote.size_bytes)

    def _contiguous(self) -> int:
        part = next((i for i in range(self._parts) if i not in self._journal.done), self._parts)
        return min(part * self._journal.part_bytes, self._remote.size_bytes)

    def _work(self, file: int, stream: Answer | None, prefix: "_PrefixHash") -> None:
        """Fetch part after part until none is missing; the first answer is read on for as long as it fits."""
        try:
            with self._gate:
                at = 0
                while (part := self._next()) is not None:
                    start, end = self._bounds(part)
                    if stream is not None and start != at:
                        _hang_up(stream)
                        stream = None
                    stream, at = self._fetch_part(file, start, end, stream), end
                    self._note(part, prefix)
        except BaseException:
            self._stop.set()
            raise
        finally:
            if stream is not None:
                _hang_up(stream)

    def _next(self) -> int | None:
        with self._lock:
            return self._missing.popleft() if self._missing and not self._stop.is_set() else None

    def _note(self, part: int, prefix: "_PrefixHash") -> None:
        with self._lock:
            if not self._stop.is_set():
                self._journal.add(part)
                prefix.advance(self._contiguous())

    def _fetch_part(self, file: int, offset: int, end: int, stream: Answer | None) -> Answer | None:
        """Write the bytes of one part; return ``stream`` when it goes on behind them."""
        failures = 0
        while offset < end and not self._stop.is_set():
            before, seconds, answer = offset, 0.0, stream
            try:
                if answer is None:
                    answer = self._ask(offset, end)
                    seconds = retry_after(answer.response)
                    self._check(answer.response, offset)
                for offset in self._copied(answer, file, offset, end):  # noqa: B007, B020
                    pass
                if offset < end:
                    raise Stalled(f"the connection ended {end - offset} bytes early")
                if stream is None:
                    answer.response.release_conn()  # read to its end: the next part may have the connection
            except BaseException as error:
                _hang_up(answer)
                stream = None
                if not isinstance(error, (*FAULTS, Stalled)) or (
                    isinstance(error, OSError) and explain_os_error(error)
                ):
                    raise  # a full disk does not empty itself
                failures = 0 if offset - before >= SLOW_BYTES else failures + 1
                if failures >= ATTEMPTS or self._stop.is_set():
                    raise
                self._stop.wait(max(seconds, BACKOFF_SECONDS * 2**failures * random.uniform(0.5, 1.5)))  # noqa: S311
        return stream

    def _ask(self, offset: int, end: int) -> Answer:
        headers = {"Range": f"bytes={offset}-{end - 1}", "If-Range": self._remote.validator}
        answer = redirects.get(self._pool, self._here, headers)
        if answer.response.status in (401, 403, 404, 410) and self._here != self._remote.url:
            answer.response.close()  # the signed address of the first answer may have expired
            answer = redirects.get(self._pool, self._remote.url, headers)
            self._here = answer.url
        return answer

    def _copied(self, answer: Answer, file: int, offset: int, end: int) -> Iterator[int]:
        """Write what the answer brings; yield the offset behind each chunk."""
        response = answer.response
        mark, since = offset, time.monotonic()
        while offset < end and not self._stop.is_set():
            chunk = response.read1(min(CHUNK_BYTES, end - offset))
            if not chunk:
                return
            os.pwrite(file, chunk, offset)
            offset += len(chunk)
            self._count(len(chunk))
            yield offset
            now = time.monotonic()
            if now - since > SLOW_SECONDS:
                if offset - mark < SLOW_BYTES:
                    raise Stalled(f"{offset - mark} bytes in {SLOW_SECONDS:.0f} s")
                mark, since = offset, now

    def _check(self, response: urllib3.BaseHTTPResponse, offset: int) -> None:
        if redirects.is_passing(response.status):
            raise Stalled(f"the server answered {response.status}")
        redirects.check_status(response.status, self._remote.url)
        if response.status == 200:
            raise FileChanged
        start, size = content_range(response)
        if size != self._remote.size_bytes or start != offset:
            raise FileChanged

    def _count(self, size_bytes: int) -> None:
        with self._lock:
            self._have_bytes += size_bytes
            self._progress(self._have_bytes)


def _hang_up(answer: Answer | None) -> None:
    if answer is not None:
        answer.response.close()


class _PrefixHash(threading.Thread):
    """Takes the sha256 of a file that grows, as far as it has no holes."""

    def __init__(self, file: int, size_bytes: int) -> None:
        super().__init__(daemon=True)
        self._file, self._size = file, size_bytes
        self._ready, self._stopped = 0, False
        self._changed = threading.Condition()
        self._hash = hashlib.sha256()

    def advance(self, ready_bytes: int) -> None:
        """Say how many bytes there are from the start on."""
        with self._changed:
            self._ready = max(self._ready, ready_bytes)
            self._changed.notify()

    def stop(self) -> None:
        """End without a digest."""
        with self._changed:
            self._stopped = True
            self._changed.notify()

    def run(self) -> None:
        """Hash until the end of the file."""
        offset = 0
        while offset < self._size:
            ready = self._wait_behind(offset)
            if ready is None:
                return
            while offset < ready:
                chunk = os.pread(self._file, min(CHUNK_BYTES, ready - offset), offset)
                self._hash.update(chunk)
                offset += len(chunk)

    def _wait_behind(self, offset: int) -> int | None:
        with self._changed:
            self._changed.wait_for(lambda: self._ready > offset or self._stopped)
            return None if self._stopped else self._ready

    def hexdigest(self) -> str:
        """Return the digest when all bytes have been there."""
        self.join()
        return self._hash.hexdigest()


@contextmanager
def _prefix_hash(file: int, size_bytes: int) -> Iterator[_PrefixHash]:
    prefix = _PrefixHash(file, size_bytes)
    prefix.start()
    try:
        yield prefix
    finally:
        prefix.stop()
        prefix.join()
