"""A dataset file in a bucket: ``s3://``, ``gs://`` and ``az://CONTAINER/path``, through obstore.

Credentials come from where the cloud's own tools take them: the environment, a profile, or the identity of the
machine or pod. None stand in a Workspace.
"""

import os
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from presets.errors import (
    LATER,
    ConfigError,
    DataError,
    KaiflowError,
    NotPermittedError,
    TryAgainError,
    UnavailableError,
)
from steps.limits import check_size

SCHEMES = ("s3", "gs", "az")
PART_BYTES, PARTS = 8 << 20, 8


def fetch_bucket_file(url: str, folder: Path, max_bytes: int) -> tuple[str, Path]:
    """Return (version, path) of the file, which is downloaded into ``folder`` unless that version is there.

    Raises:
        NotPermittedError: the credentials do not open it.
        DataError: there is no such file, or it is too large.
        TryAgainError: the bucket does not answer.
    """
    try:
        import obstore
        from obstore.exceptions import BaseError
        from obstore.store import from_url
    except ImportError as error:
        raise ConfigError(
            "BucketsMissing", "Reading from buckets needs obstore.", fix="pip install 'kaiflow[buckets]'."
        ) from error
    parts = urlsplit(url)
    key = unquote(parts.path.lstrip("/"))
    try:
        store: Any = from_url(f"{parts.scheme}://{parts.netloc}", client_options=_client_options())
        meta = obstore.head(store, key)
        version = str(meta["e_tag"] or meta["last_modified"].isoformat())
        check_size(url, meta["size"], max_bytes)
        path, note = folder / Path(key).name, folder / ".version"
        if path.is_file() and note.is_file() and note.read_text() == version:
            return version, path
        folder.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.part")
        _download(store, key, meta["size"], part)
        if (obstore.head(store, key)["e_tag"] or version) != version:
            raise TryAgainError("DatasetChanging", f"{url} changed while it was read.", fix="The step tries again.")
        part.replace(path)
        note.write_text(version)
    except (BaseError, FileNotFoundError, PermissionError) as error:
        raise _refused(url, error) from error
    return version, path


def _download(store: Any, key: str, size: int, part: Path) -> None:  # noqa: ANN401  (obstore's, of three kinds)
    """Read a window of several ranges at a time: parallel, and memory stays flat."""
    import obstore

    with part.open("wb") as writer:
        for begin in range(0, size, PART_BYTES * PARTS):
            bounds = [*range(begin, min(begin + PART_BYTES * PARTS, size), PART_BYTES)]
            ends = [min(start + PART_BYTES, size) for start in bounds]
            for chunk in obstore.get_ranges(store, key, starts=bounds, ends=ends, coalesce=0):
                writer.write(chunk)
        writer.flush()
        os.fsync(writer.fileno())


def _client_options() -> Any:  # noqa: ANN401  (obstore's type is for type checkers alone)
    plain = os.environ.get("AWS_ENDPOINT_URL", "").startswith("http://")
    return {"timeout": "60s", "connect_timeout": "15s", "allow_http": plain}


def _refused(url: str, error: Exception) -> KaiflowError:
    name = type(error).__name__
    text = ""
    with suppress(Exception):
        text = str(error)
    if isinstance(error, FileNotFoundError) or name == "NotFoundError":
        return DataError("DatasetNotFound", f"There is no {url}.", fix="Check bucket and path.")
    if isinstance(error, PermissionError) or name in ("UnauthenticatedError", "PermissionDeniedError"):
        return NotPermittedError("DatasetForbidden", f"{url} may not be read with these credentials.", fix=_SIGN_IN)
    if "credential" in text.lower() or "imds" in text.lower() or "metadata" in text.lower():
        return NotPermittedError("DatasetForbidden", f"There are no credentials for {url}.", fix=_SIGN_IN)
    if name in ("GenericError", "JoinError"):
        return TryAgainError("DatasetUnreachable", f"{url} does not answer.", fix=LATER)
    return UnavailableError("DatasetRefused", f"{url}: {name}.", fix="Check bucket and region.")


_SIGN_IN = (
    "Give the pod an identity that may read the bucket, or set the cloud's own variables "
    "(AWS_..., GOOGLE_..., AZURE_...)."
)
