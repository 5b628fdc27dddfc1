"""A proxy before a real registry that does one thing wrong: faults by name."""

import http.client
import socket
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler

from tests.servers import serving

Fault = Callable[["Exchange"], bool]  # returns whether it has answered, so that nothing is passed on


class Exchange(BaseHTTPRequestHandler):
    """One request; faults look at it, answer or spoil it."""

    protocol_version = "HTTP/1.1"
    upstream = ""
    fault: Fault
    seen: Counter[str]
    spoil: Callable[[bytes], bytes] | None = None

    def do_GET(self) -> None:
        """Look at the request, spoil it or pass it on."""
        self.spoil = None
        kind = "upload" if "/blobs/uploads/" in self.path else "blob" if "/blobs/" in self.path else "manifest"
        self.kind = f"{self.command} {kind}"
        self.seen[self.kind] += 1
        if type(self).fault(self):
            return
        self.forward(self.body())

    do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_GET  # noqa: N815  (http.server's names)

    def body(self, most: int | None = None) -> bytes:
        """Read the request's body, or its first bytes."""
        length = int(self.headers.get("Content-Length") or 0)
        return self.rfile.read(length if most is None else min(most, length))

    def forward(self, body: bytes) -> None:
        """Pass the request on, and the answer back."""
        connection = http.client.HTTPConnection(self.upstream, timeout=30)
        connection.request(self.command, self.path, body, dict(self.headers.items()))
        answer = connection.getresponse()
        data = answer.read()
        if self.spoil:
            data = self.spoil(data)
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("transfer-encoding", "connection", "content-length"):
                self.send_header(name, value)
        length = answer.getheader("Content-Length", "0") if self.command == "HEAD" else str(len(data))
        self.send_header("Content-Length", length)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)
        connection.close()

    def answer(self, status: int, **headers: str) -> bool:
        """Answer without the registry."""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", "0")
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        return True

    def cut(self) -> bool:
        """End the connection without an answer."""
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)  # http.server closes it
        return True

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing."""


@contextmanager
def proxied(upstream: str, fault: Fault) -> Iterator[tuple[str, Counter[str]]]:
    """Yield (address, counts of requests by kind) of a proxy before ``upstream``."""
    seen: Counter[str] = Counter()
    handler = type("Handler", (Exchange,), {"upstream": upstream, "fault": staticmethod(fault), "seen": seen})
    with serving(handler) as port:
        yield f"127.0.0.1:{port}", seen


def first(times: int, kind: str, do: Callable[[Exchange], bool]) -> Fault:
    """Return a fault that ``do``es something the first ``times`` that a request is of ``kind``."""

    def fault(exchange: Exchange) -> bool:
        return do(exchange) if exchange.kind == kind and exchange.seen[kind] <= times else False

    return fault
