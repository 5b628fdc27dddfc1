"""What do the headers of an answer say of the file: its name, size and version, and when to ask again?"""

import re
from email.utils import parsedate_to_datetime
from urllib.parse import unquote, urlsplit

import urllib3

LONGEST_WAIT_SECONDS = 60.0


def content_range(response: urllib3.BaseHTTPResponse) -> tuple[int, int]:
    """Return (first byte, size of the whole file) of a 206, (-1, -1) when it does not say."""
    unit, _, rest = response.headers.get("Content-Range", "").partition(" ")
    span, _, size = rest.partition("/")
    start = span.partition("-")[0]
    if unit != "bytes" or not start.isdecimal() or not size.isdecimal():
        return -1, -1
    return int(start), int(size)


def content_length(response: urllib3.BaseHTTPResponse) -> int | None:
    """Return the announced size in bytes, None when it is not announced."""
    length = response.headers.get("Content-Length", "")
    return int(length) if length.isdecimal() else None


def strong_validator(response: urllib3.BaseHTTPResponse) -> str:
    """Return what may stand in ``If-Range``, empty when the server names no version that can be relied on.

    A date counts when the file was older than a minute as it was sent: two versions of one second share theirs
    (RFC 9110 section 8.8.2.2).
    """
    etag = response.headers.get("ETag", "")
    if etag and not etag.startswith("W/"):
        return etag
    modified, now = response.headers.get("Last-Modified", ""), response.headers.get("Date", "")
    try:
        age = (parsedate_to_datetime(now) - parsedate_to_datetime(modified)).total_seconds()
    except (TypeError, ValueError):
        return ""
    return modified if age > 60 else ""


def retry_after(response: urllib3.BaseHTTPResponse) -> float:
    """Return after how many seconds the server wants to be asked again, 0 when it does not say."""
    value = response.headers.get("Retry-After", "")
    return min(LONGEST_WAIT_SECONDS, float(value)) if value.isdecimal() else 0.0


def file_name(url: str, disposition: str) -> str:
    """Return the name to save under: Content-Disposition's (RFC 6266), else the last part of the path."""
    extended = re.search(r"filename\*\s*=\s*[\w-]*'[^']*'([^;\s]+)", disposition, re.IGNORECASE)
    plain = re.search(r'filename\s*=\s*(?:"([^"]*)"|([^;\s]+))', disposition, re.IGNORECASE)
    name = unquote(extended[1]) if extended else (plain[1] or plain[2] or "") if plain else unquote(urlsplit(url).path)
    name = re.sub(r"[\x00-\x1f]", "", name.replace("\\", "/").rstrip("/").rpartition("/")[2])
    short = name.encode(errors="replace")[-200:].decode(errors="ignore")  # file systems count bytes
    return short.lstrip(".") or "dataset"
