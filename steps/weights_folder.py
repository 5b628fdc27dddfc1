"""Base weights in a folder of this machine: named by what is in it, and read where they lie.

A snapshot of the hub's own cache is such a folder. Links are followed: the user has named the folder.
"""

import hashlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from presets.errors import DataError
from steps.model_files import is_wanted, require_whole
from steps.store import canonical, digest_of_file

READERS = 2


def pinned(folder: Path) -> str:
    """Return the digest of the model's files there, names and bytes.

    Raises:
        DataError: there is no model as safetensors.
    """
    files = _files(folder)
    with ThreadPoolExecutor(READERS) as several:
        return digest_of(zip([path.name for path in files], several.map(digest_of_file, files), strict=True))


def digest_of(files: Iterable[tuple[str, str]]) -> str:
    """Return what files (name, digest) are known by together."""
    return f"sha256:{hashlib.sha256(canonical(dict(files))).hexdigest()}"


def from_folder(source: Path, folder: Path) -> None:
    """Lay links to the model's files into ``folder``: nothing is copied before it goes into a store.

    Raises:
        DataError: there is no model as safetensors any more.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for path in _files(source):
        (folder / path.name).unlink(missing_ok=True)
        (folder / path.name).symlink_to(path.absolute())


def _files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise DataError("NoSafetensors", f"The folder {folder} is not there.", fix="Name the folder of a model.")
    require_whole(folder, f"the folder {folder}")
    return sorted(filter(is_wanted, folder.iterdir()))
