"""A dataset file on the Hugging Face hub: ``hf://datasets/ORG/NAME[@REVISION]/path``, or its ``resolve`` address.

Through huggingface_hub, so that tokens, mirrors (``HF_ENDPOINT``), its cache and offline use are as users know
them. A branch is resolved to its commit first, and that commit is what is recorded.
"""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
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
from presets.os_errors import explain_os_error
from steps.hub_transport import transport_errors
from steps.limits import check_size

HOSTS = ("huggingface.co", "www.huggingface.co", "hf.co")


@dataclass(frozen=True, slots=True)
class HubFile:
    """A file of a dataset repository."""

    repository: str
    revision: str
    path: str


def hub_file(url: str) -> HubFile | None:
    """Return the file that ``url`` names on the hub, None when it is no address of one."""
    parts = urlsplit(url)
    if parts.scheme == "hf":
        found = re.fullmatch(r"/([^/@]+/[^/@]+)(?:@([^/]+))?/(.+)", parts.path)
        if parts.netloc != "datasets" or not found:
            return None
        return HubFile(unquote(found[1]), unquote(found[2] or "main"), unquote(found[3]))
    endpoint = urlsplit(os.environ.get("HF_ENDPOINT", "")).netloc
    if parts.scheme in ("http", "https") and parts.netloc in (*HOSTS, endpoint) and parts.netloc:
        found = re.fullmatch(r"/datasets/([^/]+/[^/]+)/(?:resolve|blob)/([^/]+)/(.+)", parts.path)
        return HubFile(found[1], unquote(found[2]), unquote(found[3])) if found else None
    return None


def fetch_hub_file(file: HubFile, folder: Path | None, max_bytes: int) -> tuple[str, Path]:
    """Return (commit, path) of the file; ``folder`` is its cache, None the user's own.

    Raises:
        NotPermittedError: the dataset is gated or private, and the token does not open it.
        DataError: there is no such file, or it is too large.
        TryAgainError: the hub does not answer.
    """
    try:
        from huggingface_hub import HfApi, constants, hf_hub_download
        from huggingface_hub.errors import HfHubHTTPError
    except ImportError as error:
        raise ConfigError(
            "HubMissing", "Reading from the hub needs huggingface_hub.", fix="pip install 'kaiflow[data]'."
        ) from error
    token = os.environ.get("HF_TOKEN") or None
    commit = file.revision
    try:
        if not constants.HF_HUB_OFFLINE:
            api = HfApi(token=token)
            info = api.dataset_info(file.repository, revision=file.revision, timeout=30)
            commit = str(info.sha)
            _check_size(
                file, api.get_paths_info(file.repository, [file.path], revision=commit, repo_type="dataset"), max_bytes
            )
        path = hf_hub_download(
            file.repository, file.path, repo_type="dataset", revision=commit, cache_dir=folder, token=token
        )
    except HfHubHTTPError as error:
        raise _refused(file, error.response.status_code, str(error.response.headers.get("X-Error-Code", ""))) from error
    except transport_errors() as error:
        if explain_os_error(error):  # this machine's fault
            raise
        raise TryAgainError(
            "HubUnreachable",
            f"The hub does not answer for {file.repository} ({type(error).__name__}).",
            fix="Check the network and HF_ENDPOINT; with HF_HUB_OFFLINE=1 only files in the cache are found.",
        ) from error
    return commit, Path(path)


def _check_size(file: HubFile, infos: Sequence[object], max_bytes: int) -> None:
    sizes = [size for info in infos if isinstance(size := getattr(info, "size", None), int)]
    if not sizes:
        raise _refused(file, 404, "EntryNotFound")
    check_size(f"{file.path} of {file.repository}", sizes[0], max_bytes)


def _refused(file: HubFile, status: int, code: str) -> KaiflowError:
    where = f"https://huggingface.co/datasets/{file.repository}"
    if status in (401, 403) or code == "GatedRepo":
        return NotPermittedError(
            "DatasetForbidden",
            f"The hub refuses the dataset {file.repository} ({status}).",
            fix=f"Accept its terms at {where} and name a Secret with HF_TOKEN (presetOptions.modelAccessSecret).",
        )
    if status == 404:
        what = {"RevisionNotFound": f"no revision {file.revision}", "EntryNotFound": f"no file {file.path}"}
        return DataError(
            "DatasetNotFound",
            f"The hub has {what.get(code, 'no such dataset or file')} in {file.repository}.",
            fix=f"Look at {where}/tree/main; a private one needs HF_TOKEN.",
        )
    if status == 429 or status >= 500:
        return TryAgainError("HubUnreachable", f"The hub answered {status}.", fix=LATER)
    return UnavailableError("HubRefused", f"The hub answered {status} for {file.repository}.", fix="Check the address.")
