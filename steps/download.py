"""One file over http(s), whole or not at all.

Redirects are followed by hand so that every hop is checked: scheme, no step down from https to http, and the
addresses that the host resolves to (a private one is refused on a cluster, a metadata endpoint everywhere).
The file appears under its name only when it is complete; a validator (ETag or Last-Modified) kept beside it
saves the next download when the server says 304.
"""

import json
import os
import re
import socket
from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit

import urllib3

from presets.addresses import is_metadata, is_metadata_address, is_private_address, without_query
from presets.errors import DataError, KaiflowError, NotPermittedError, TryAgainError
from steps import logs

MAX_REDIRECTS = 5
CHUNK_BYTES = 1 << 20
TIMEOUT = urllib3.Timeout(connect=15, read=60)
VALIDATOR_FILE = ".validator.json"


def download(url: str, folder: Path, *, private_hosts_allowed: bool) -> Path:
    """Return the downloaded file of ``url`` in ``folder``, from the last time when it has not changed.

    Raises:
        DataError: the server says the file is not there, or sends less than it announced; or a hop is forbidden.
        NotPermittedError: the server wants credentials.
        TryAgainError: the server does not answer, or says that it cannot now.
    """
    folder.mkdir(parents=True, exist_ok=True)
    known = _known(folder, url)
    pool = urllib3.PoolManager(retries=False, timeout=TIMEOUT)
    try:
        return _follow(pool, url, folder, known, private_hosts_allowed)
    except UnicodeError as error:
        raise _refused(url, "names a host that cannot be", "Check the URL.") from error
    except (urllib3.exceptions.HTTPError, socket.gaierror) as error:
        raise TryAgainError(
            "DatasetUnreachable",
            f"{without_query(url)} does not answer ({type(error).__name__}).",
            fix="Check the host name and the network; the download starts again by itself.",
        ) from error
    finally:
        pool.clear()


def _follow(pool: urllib3.PoolManager, url: str, folder: Path, known: Mapping[str, str], private: bool) -> Path:
    here = url
    for _ in range(MAX_REDIRECTS + 1):
        _check_hop(url, here, private)
        headers = {"Accept-Encoding": "identity", "User-Agent": "kaiflow"}
        for name, header in (("etag", "If-None-Match"), ("last-modified", "If-Modified-Since")):
            if name in known:
                headers[header] = known[name]
        response = pool.request("GET", here, headers=headers, preload_content=False, redirect=False)
        try:
            if response.status in (301, 302, 303, 307, 308) and response.headers.get("Location"):
                here = urljoin(here, response.headers["Location"])
                continue
            if response.status == 304 and "file" in known:
                logs.event("not_modified", url=without_query(url))
                return folder / known["file"]
            _check_status(response.status, url)
            return _save(response, url, folder)
        finally:
            response.close()  # a body that was not read must not meet the next request on the same connection
    raise _refused(url, f"redirects more than {MAX_REDIRECTS} times", "Name the final address.")


def _check_hop(first: str, here: str, private_hosts_allowed: bool) -> None:
    parts = urlsplit(here)
    host = parts.hostname or ""
    if parts.scheme not in ("http", "https"):
        raise _refused(first, f"redirects to the scheme {parts.scheme!r}", "Name the final https address.")
    if urlsplit(first).scheme == "https" and parts.scheme == "http":
        raise _refused(first, "redirects from https to http", "Name an address that stays on https.")
    addresses = {ip_address(str(info[4][0]).partition("%")[0]) for info in socket.getaddrinfo(host, None)}
    if is_metadata(host) or any(is_metadata_address(a) for a in addresses):
        raise _refused(first, f"leads to {host}, a metadata endpoint", "Serve the dataset from another host.")
    if not private_hosts_allowed and any(is_private_address(a) for a in addresses):
        raise _refused(first, f"leads to {host}, a private address", "Serve the dataset from a public host.")


def _check_status(status: int, url: str) -> None:
    shown = without_query(url)
    if status == 200:
        return
    if status in (401, 403):
        raise NotPermittedError(
            "DatasetForbidden", f"{shown} answered {status}.", fix="Make the file readable, or use a signed URL."
        )
    if status in (404, 410):
        raise DataError("DatasetNotFound", f"{shown} answered {status}: there is no such file.", fix="Check the URL.")
    if status in (408, 429) or status >= 500:
        raise TryAgainError("DatasetUnreachable", f"{shown} answered {status}.", fix="The step tries again by itself.")
    raise DataError("DatasetRefused", f"{shown} answered {status}.", fix="Check the URL with curl -I.")


def _save(response: urllib3.BaseHTTPResponse, url: str, folder: Path) -> Path:
    name = file_name(url, response.headers.get("Content-Disposition", ""))
    part, expected, size = folder / f".{name}.part", response.headers.get("Content-Length"), 0
    with part.open("wb") as writer:
        for chunk in response.stream(CHUNK_BYTES):
            size += len(chunk)
            writer.write(chunk)
        writer.flush()
        os.fsync(writer.fileno())
    if expected is not None and expected.isdecimal() and size != int(expected):
        raise TryAgainError(
            "DatasetCut",
            f"{without_query(url)} sent {size} of {expected} bytes.",
            fix="The step tries again by itself.",
        )
    part.replace(folder / name)
    validators = {k: response.headers[k] for k in ("etag", "last-modified") if k in response.headers}
    (folder / VALIDATOR_FILE).write_text(json.dumps({**validators, "url": url, "file": name}))
    logs.event("downloaded", url=without_query(url), bytes=size, file=name)
    return folder / name


def _known(folder: Path, url: str) -> dict[str, str]:
    try:
        known: dict[str, str] = json.loads((folder / VALIDATOR_FILE).read_text())
    except (OSError, ValueError):
        return {}
    whole = known.get("url") == url and (folder / str(known.get("file"))).is_file()
    return known if whole else {}


def file_name(url: str, disposition: str) -> str:
    """Return the name to save under: Content-Disposition's (RFC 6266), else the last part of the path."""
    extended = re.search(r"filename\*\s*=\s*[\w-]*'[^']*'([^;\s]+)", disposition, re.IGNORECASE)
    plain = re.search(r'filename\s*=\s*(?:"([^"]*)"|([^;\s]+))', disposition, re.IGNORECASE)
    name = unquote(extended[1]) if extended else (plain[1] or plain[2] or "") if plain else unquote(urlsplit(url).path)
    name = re.sub(r"[\x00-\x1f]", "", name.replace("\\", "/").rstrip("/").rpartition("/")[2])
    short = name.encode(errors="replace")[-200:].decode(errors="ignore")  # file systems count bytes
    return short.lstrip(".") or "dataset"


def _refused(url: str, what: str, fix: str) -> KaiflowError:
    return DataError("AddressForbidden", f"{without_query(url)} {what}.", fix=fix)
