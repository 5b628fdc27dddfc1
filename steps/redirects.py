"""One GET, redirects followed by hand so that every hop is checked, and the answer's status told as an error."""

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urljoin, urlsplit

import urllib3

from presets.addresses import without_query
from presets.errors import LATER, DataError, KaiflowError, NotPermittedError, TryAgainError

MAX_REDIRECTS = 5
REDIRECTS = (301, 302, 303, 307, 308)
HEADERS = {"Accept-Encoding": "identity", "User-Agent": "kaiflow"}


@dataclass(frozen=True, slots=True)
class Answer:
    """What the last hop answered, and where it is; whoever gets it closes the response."""

    response: urllib3.BaseHTTPResponse
    url: str


def get(pool: urllib3.PoolManager, url: str, headers: Mapping[str, str]) -> Answer:
    """Return the answer to a GET of ``url`` behind all redirects, its body not yet read.

    Raises:
        DataError: a hop is forbidden.
        urllib3.exceptions.HTTPError: a hop does not answer.
    """
    here = url
    for _ in range(MAX_REDIRECTS + 1):
        _check_hop(url, here)
        response = pool.request("GET", here, headers={**HEADERS, **headers}, preload_content=False, redirect=False)
        target = response.headers.get("Location") if response.status in REDIRECTS else None
        if target is None:
            return Answer(response, here)
        response.close()  # a body that was not read must not meet the next request on the same connection
        here = urljoin(here, target)
    raise _refused(url, f"redirects more than {MAX_REDIRECTS} times", "Name the final address.")


def _check_hop(first: str, here: str) -> None:
    scheme = urlsplit(here).scheme
    if scheme not in ("http", "https"):
        raise _refused(first, f"redirects to the scheme {scheme!r}", "Name the final https address.")
    if urlsplit(first).scheme == "https" and scheme == "http":
        raise _refused(first, "redirects from https to http", "Name an address that stays on https.")


def check_status(status: int, url: str) -> None:
    """Return when the server sends the file.

    Raises:
        NotPermittedError: it wants credentials.
        DataError: there is no such file.
        TryAgainError: it cannot now.
    """
    shown = without_query(url)
    if status in (200, 206):
        return
    if status in (401, 403):
        raise NotPermittedError(
            "DatasetForbidden", f"{shown} answered {status}.", fix="Make the file readable, or use a signed URL."
        )
    if status in (404, 410):
        raise DataError("DatasetNotFound", f"{shown} answered {status}: there is no such file.", fix="Check the URL.")
    if is_passing(status):
        raise TryAgainError("DatasetUnreachable", f"{shown} answered {status}.", fix=LATER)
    raise DataError("DatasetRefused", f"{shown} answered {status}.", fix="Check the URL with curl -I.")


def is_passing(status: int) -> bool:
    """Whether the same request may succeed a moment later."""
    return status in (408, 425, 429) or status >= 500


def _refused(url: str, what: str, fix: str) -> KaiflowError:
    return DataError("AddressForbidden", f"{without_query(url)} {what}.", fix=fix)
