"""Which complete file is here already, and what did its server call that version of it?"""

import hashlib
import json
import os
from pathlib import Path

import urllib3

KNOWN_FILE = ".known.json"


def conditions(known: dict[str, str] | None) -> dict[str, str]:
    """Return the headers that make a GET a question whether that version is still the one."""
    headers = (("etag", "If-None-Match"), ("last-modified", "If-Modified-Since"))
    return {header: known[name] for name, header in headers if name in known} if known else {}


def known(folder: Path, url: str) -> dict[str, str] | None:
    """Return what is known of a file that is complete here and as it was left."""
    try:
        known: dict[str, str] = json.loads((folder / KNOWN_FILE).read_text())
        stat = (folder / known["file"]).stat()
    except (OSError, ValueError, KeyError):
        return None
    return known if known.get("url") == _fingerprint(url) and known.get("stat") == _stat_text(stat) else None


def remember(path: Path, sha256: str, response: urllib3.BaseHTTPResponse, url: str, folder: Path) -> None:
    """Note a complete file, by the fingerprint of its URL."""
    validators = {name: response.headers[name] for name in ("etag", "last-modified") if name in response.headers}
    facts = {
        "url": _fingerprint(url),
        "file": path.name,
        "sha256": sha256,
        "stat": _stat_text(path.stat()),
    }
    (folder / KNOWN_FILE).write_text(json.dumps({**validators, **facts}))


def _fingerprint(url: str) -> str:
    """Return what stands for a URL, which is not written down: it may be a secret by its signature."""
    return hashlib.sha256(url.encode(errors="replace")).hexdigest()


def _stat_text(stat: os.stat_result) -> str:
    return f"{stat.st_size} {stat.st_mtime_ns}"


def forget(folder: Path) -> None:
    """Remove the note."""
    (folder / KNOWN_FILE).unlink(missing_ok=True)
