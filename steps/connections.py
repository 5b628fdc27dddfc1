"""To which address may a connection of a download go?  Asked when it is made, of the very address it goes to.

The name is resolved once, its addresses are checked, and the socket is opened to one of those: a name that
resolves to another address a moment later (DNS re-binding) leads nowhere.
"""

import socket
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from presets.addresses import is_metadata, is_metadata_address, is_private_address
from presets.errors import DataError

CONNECT_SECONDS = 15
READ_SECONDS = 60


@dataclass(frozen=True, slots=True)
class Guard:
    """Which addresses a download may reach; a metadata endpoint is never among them."""

    private_hosts_allowed: bool

    def addresses(self, host: str, port: int) -> list[str]:
        """Return the addresses of ``host``, all of them allowed.

        Raises:
            DataError: one of them is not.
            OSError: the name does not resolve.
        """
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        addresses = list(dict.fromkeys(str(info[4][0]) for info in found))
        self._check(host, addresses)
        return addresses

    def _check(self, host: str, addresses: Sequence[str]) -> None:
        plain = [ip_address(address.partition("%")[0]) for address in addresses]
        if is_metadata(host) or any(is_metadata_address(address) for address in plain):
            raise _forbidden(host, "a metadata endpoint, which hands out credentials", "another host")
        if not self.private_hosts_allowed and any(is_private_address(address) for address in plain):
            raise _forbidden(host, "a private address", "a public host")


def _forbidden(host: str, what: str, instead: str) -> DataError:
    return DataError(
        "AddressForbidden", f"The download leads to {host}, {what}.", fix=f"Serve the file from {instead}."
    )


def guarded_pool(guard: Guard, connections: int) -> urllib3.PoolManager:
    """Return a pool that follows no redirect, retries nothing, and opens sockets only where ``guard`` lets it."""

    class Plain(HTTPConnection):
        def _new_conn(self) -> socket.socket:
            return _connect(self, guard)

    class Secure(HTTPSConnection):
        def _new_conn(self) -> socket.socket:
            return _connect(self, guard)

    class PlainPool(HTTPConnectionPool):
        ConnectionCls = Plain  # pyright: ignore[reportAssignmentType]  # urllib3's protocol does not fit its own class

    class SecurePool(HTTPSConnectionPool):
        ConnectionCls = Secure  # pyright: ignore[reportAssignmentType]

    timeout = urllib3.Timeout(connect=CONNECT_SECONDS, read=READ_SECONDS)
    pool = urllib3.PoolManager(num_pools=4, maxsize=connections, retries=False, timeout=timeout)
    pool.pool_classes_by_scheme = {"http": PlainPool, "https": SecurePool}
    return pool


def _connect(connection: HTTPConnection | HTTPSConnection, guard: Guard) -> socket.socket:
    """Open the socket of ``connection``; the seam that urllib3's own SOCKS support uses."""
    host, port = connection.host, connection.port or connection.default_port
    try:
        addresses = guard.addresses(host.strip("[]"), port)
    except socket.gaierror as error:
        raise urllib3.exceptions.NameResolutionError(host, connection, error) from error
    timeout: Any = connection.timeout
    last: OSError | None = None
    for address in addresses:
        try:
            made = socket.create_connection((address, port), timeout=timeout)
        except OSError as error:
            last = error
            continue
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return made
    raise urllib3.exceptions.NewConnectionError(connection, f"{host} does not answer: {last}") from last
