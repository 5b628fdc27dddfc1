"""A web server on loopback that has one file and goes wrong in the way that a test names."""

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any

from tests import servers


@dataclass
class Served:
    """The file, and what was asked for it."""

    content: bytes
    etag: str | None = '"v1"'
    headers: dict[str, str] = field(default_factory=dict)
    ranges: bool = True
    asked: list[tuple[str, str]] = field(default_factory=list)  # path, Range header
    url: str = ""


Fault = Callable[["Answering", Served], bool]  # True: it has answered itself


class Answering(BaseHTTPRequestHandler):
    """One request; ``send_file`` answers it as a good server would."""

    protocol_version = "HTTP/1.1"
    served: Served
    fault: Fault

    def log_message(self, format: str, *_: Any) -> None:  # noqa: A002
        """Say nothing."""

    def do_GET(self) -> None:
        """Answer, or let the fault answer."""
        self.served.asked.append((self.path, self.headers.get("Range", "")))
        if not type(self).fault(self, self.served):
            self.send_file()

    def span(self) -> tuple[int, int, bool]:
        """Return the first byte asked for, the one behind the last, and whether it is a range."""
        size = len(self.served.content)
        found = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        condition = self.headers.get("If-Range")
        if not found or not self.served.ranges or (condition and condition != self.served.etag):
            return 0, size, False
        return int(found[1]), min(int(found[2] or size) + (1 if found[2] else 0), size), True

    def send_file(self, *, stop_after: int | None = None, length: int | None = None, delay: float = 0.0) -> None:
        """Send what was asked for; ``stop_after`` bytes cut it, ``length`` is what is announced instead."""
        start, end, partial = self.span()
        if self.served.etag and self.headers.get("If-None-Match") == self.served.etag:
            self.send_response(304)
            self.end_headers()
            return
        body = self.served.content[start:end]
        if partial and not body:
            self.answer(416)
            return
        self.send_response(206 if partial else 200)
        if partial:
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(self.served.content)}")
        if self.served.etag:
            self.send_header("ETag", self.served.etag)
        for name, value in self.served.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self._write(body if stop_after is None else body[:stop_after], delay)
        if stop_after is not None or length is not None:
            self.close_connection = True

    def _write(self, body: bytes, delay: float) -> None:
        step = 65536 if not delay else 1
        try:
            for at in range(0, len(body), step):
                self.wfile.write(body[at : at + step])
                time.sleep(delay)
        except OSError:
            self.close_connection = True

    def answer(self, status: int, **headers: str) -> None:
        """Send a status without a body."""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", "0")
        self.end_headers()


def healthy(_: Answering, __: Served) -> bool:
    """No fault."""
    return False


@contextmanager
def serving(served: Served, fault: Fault = healthy) -> Iterator[Served]:
    """Serve on a free port of loopback; ``served.url`` is the file's address."""
    handler = type("Handler", (Answering,), {"served": served, "fault": staticmethod(fault)})
    with servers.serving(handler) as port:
        served.url = f"http://127.0.0.1:{port}/train.parquet"
        yield served
