"""The files of a data image: KAITO's (an image with files under ``/data``) and artifacts that oras pushed.

Layers are laid over one another as a container runtime does it, whiteouts included. What would lie outside the
folder, links and devices are refused: a dataset needs none.
"""

import shutil
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from presets.errors import DataError
from steps.docker_config import DockerConfig
from steps.limits import check_size
from steps.registry import Registry
from steps.unpack import opened

TITLE = "org.opencontainers.image.title"
UNPACK = "io.deis.oras.content.unpack"
DATA_FOLDER = "data"
WHITEOUT, OPAQUE = ".wh.", ".wh..wh..opq"


def pull(
    image: str, config: DockerConfig, folder: Path, max_bytes: int, *, verify: bool | str = True
) -> tuple[str, Path]:
    """Return (digest, folder with the files) of ``image``; a complete earlier pull is used again.

    Raises:
        DataError: there is no such image, it holds no files, or an entry is not a plain file.
    """
    with Registry(image, config, verify=verify) as registry:
        digest, manifest = registry.manifest()
        target = folder / digest.replace(":", "-")
        if not target.is_dir():
            shutil.rmtree(folder / ".pulling", ignore_errors=True)
            _lay_out(registry, manifest["layers"], folder / ".pulling", max_bytes).rename(target)
        return digest, target


def _lay_out(registry: Registry, layers: Sequence[Mapping[str, Any]], work: Path, max_bytes: int) -> Path:
    """Return the folder that the layers give, laid over one another in ``work``."""
    root = work / "root"
    root.mkdir(parents=True)
    room = _Room(max_bytes, registry.shown)
    for layer in layers:
        _add_layer(registry, layer, root, work, room)
    data = root / DATA_FOLDER
    found = data if data.is_dir() else root
    if not any(path.is_file() for path in found.rglob("*")):
        raise DataError("ImageEmpty", f"{registry.shown} has no files under /data.", fix="Put the dataset under /data.")
    return found


class _Room:
    """Counts what comes out of the layers: a small blob may unpack to any size."""

    def __init__(self, max_bytes: int, shown: str) -> None:
        self._taken, self._max, self._shown = 0, max_bytes, f"What {shown} unpacks to"

    def take(self, size_bytes: int) -> None:
        self._taken += size_bytes
        check_size(self._shown, self._taken, self._max)


def _add_layer(registry: Registry, layer: Mapping[str, Any], root: Path, work: Path, room: _Room) -> None:
    blob = work / "layer"
    size, digest = layer.get("size"), layer.get("digest")
    if not isinstance(size, int) or not isinstance(digest, str) or not digest.startswith("sha256:"):
        raise DataError("ImageInvalid", f"{registry.shown} has a layer without size or digest.", fix="Push it again.")
    room.take(size)
    registry.blob_to(digest, size, blob)
    notes = layer.get("annotations") or {}
    title = notes.get(TITLE)
    packed = notes.get(UNPACK) == "true" or str(layer.get("mediaType")).endswith("tar+gzip")
    if title and not packed:  # whatever its media type: oras-py calls every plain file a tar
        target = root / _safe(title, registry.shown)
        target.parent.mkdir(parents=True, exist_ok=True)
        blob.replace(target)
        return
    try:
        with opened(blob) as stream, tarfile.open(fileobj=stream, mode="r|") as archive:
            for entry in archive:
                _add_entry(archive, entry, root, registry.shown, room)
    except (tarfile.TarError, EOFError) as error:
        raise DataError(
            "ImageInvalid", f"A layer of {registry.shown} is damaged: {error}.", fix="Push it again."
        ) from error
    blob.unlink()


def _add_entry(archive: tarfile.TarFile, entry: tarfile.TarInfo, root: Path, shown: str, room: _Room) -> None:
    path = root / _safe(entry.name, shown)
    if path.name == OPAQUE:
        _remove_below(path.parent)
    elif path.name.startswith(WHITEOUT):
        _remove(path.with_name(path.name.removeprefix(WHITEOUT)))
    elif entry.isdir():
        path.mkdir(parents=True, exist_ok=True)
    elif entry.isfile():
        room.take(entry.size)
        path.parent.mkdir(parents=True, exist_ok=True)
        source = archive.extractfile(entry)
        if source is not None:
            with path.open("wb") as writer:
                while chunk := source.read(1 << 20):
                    writer.write(chunk)
    elif (
        PurePosixPath(entry.name).parts[:1] in ((DATA_FOLDER,), (".",))
        and DATA_FOLDER in PurePosixPath(entry.name).parts[:2]
    ):
        raise DataError(
            "ImageInvalid", f"{shown}: {entry.name} is a link or a device.", fix="Copy the file itself into the image."
        )


def _safe(name: str, shown: str) -> PurePosixPath:
    path = PurePosixPath(name.lstrip("/") if name.startswith("/") else name)
    if ".." in path.parts or "\0" in name or not path.parts:
        if name.strip("./") == "":
            return PurePosixPath(".")
        raise DataError("ImageInvalid", f"{shown}: {name!r} leads out of the image.", fix="Build the image again.")
    return path


def _remove(path: Path) -> None:
    if path.is_dir():
        _remove_below(path)
        path.rmdir()
    else:
        path.unlink(missing_ok=True)


def _remove_below(folder: Path) -> None:
    for path in sorted(folder.rglob("*"), reverse=True) if folder.is_dir() else ():
        path.rmdir() if path.is_dir() else path.unlink()
