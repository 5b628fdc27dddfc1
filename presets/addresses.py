"""May a dataset URL point there?  Literal hosts only; the fetch step checks the resolved addresses too.

The names are those that KAITO refuses (``api/v1beta1``, data source URL rules), plus what the literal IP
forms stand for. Metadata endpoints are refused everywhere, since they hand out credentials.
"""

import ipaddress
import re
from urllib.parse import urlsplit

METADATA_HOSTS = ("metadata.google.internal", "metadata.google", "instance-data.ec2.internal")
METADATA_ADDRESSES = ("169.254.169.254", "fd00:ec2::254", "168.63.129.16", "100.100.100.200")

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def is_metadata(host: str) -> bool:
    """Whether ``host`` is a cloud's metadata endpoint, by name or literal address."""
    name = host.rstrip(".").lower()
    if name in METADATA_HOSTS:
        return True
    address = literal_address(name)
    return address is not None and is_metadata_address(address)


def is_metadata_address(address: Address) -> bool:
    """Whether the address is link-local or a cloud's metadata endpoint."""
    mapped = getattr(address, "ipv4_mapped", None) or address
    return mapped.is_link_local or str(mapped) in METADATA_ADDRESSES


def is_private(host: str) -> bool:
    """Whether ``host`` is this machine or a private network, by name or literal address."""
    name = host.rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    address = literal_address(name)
    return address is not None and is_private_address(address)


def is_private_address(address: Address) -> bool:
    """Whether the address is not a public one."""
    mapped = getattr(address, "ipv4_mapped", None) or address
    return not mapped.is_global or mapped.is_multicast


def literal_address(host: str) -> Address | None:
    """Return the address that ``host`` literally is, also in the short and hexadecimal forms that resolvers take."""
    try:
        return ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        pass
    parts = host.split(".")
    if not 1 <= len(parts) <= 4 or not all(re.fullmatch("0x[0-9a-f]+|[0-9]+", part) for part in parts):
        return None
    try:
        numbers = [int(part, 16) if part.startswith("0x") else int(part, 8 if part[0] == "0" else 10) for part in parts]
    except ValueError:
        return None
    return _from_inet_aton(numbers)


def _from_inet_aton(numbers: list[int]) -> Address | None:
    """``127.1`` is 127.0.0.1, ``2130706433`` too: the last number fills the bytes that are left (inet_aton(3))."""
    *head, last = numbers
    if any(number > 255 for number in head) or last >= 256 ** (4 - len(head)):
        return None
    value = last
    for position, number in enumerate(head):
        value += number << (8 * (3 - position))
    return ipaddress.IPv4Address(value)


def without_query(url: str) -> str:
    """Return ``url`` without query, fragment and credentials, fit to be printed."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return "(a malformed URL)"
    return f"{parts.scheme}://{host}{port}{parts.path}"
