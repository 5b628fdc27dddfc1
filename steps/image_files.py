"""The files of a data image: KAITO's (an image with files under ``/data``) and artifacts that oras pushed.

Layers are laid over one another as a container runtime does it: see ``steps.layers``.
"""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from presets.errors import DataError
from steps.docker_config import DockerConfig
from steps.layers import DATA_FOLDER, Room, inside, lay_over
from steps.registry import Registry
from steps.store import TITLE, Descriptor

UNPACK = "io.deis.oras.content.unpack"


def pull(
    image: str,
    config: DockerConfig,
    folder: Path,
    max_bytes: int,
    *,
    verify: bool | str = True,
    everything: bool = False,
) -> tuple[str, Path]:
    """Return (digest, folder with the files) of ``image``; a complete earlier pull is used again.

    The files are those under ``/data`` where there is such a folder, else, or with ``everything``, all.

    Raises:
        DataError: there is no such image, it holds no files, or an entry is not a plain file.
    """
    with Registry(image, config, verify=verify) as registry:
        digest, manifest = registry.manifest()
        target = folder / digest.replace(":", "-")
        if not target.is_dir():
            shutil.rmtree(folder / ".pulling", ignore_errors=True)
            root = _lay_out(registry, manifest["layers"], folder / ".pulling", max_bytes)
            (root if everything else _data(root, registry.shown)).rename(target)
        return digest, target


def _lay_out(registry: Registry, layers: Sequence[Mapping[str, Any]], work: Path, max_bytes: int) -> Path:
    """Return the folder of all that the layers give, laid over one another in ``work``."""
    root = work / "root"
    root.mkdir(parents=True)
    room = Room(max_bytes, registry.shown)
    for layer in layers:
        _add_layer(registry, layer, root, work, room)
    return root


def _data(root: Path, shown: str) -> Path:
    """Return the folder of the data.

    Raises:
        DataError: there are no files in it.
    """
    data = root / DATA_FOLDER
    found = data if data.is_dir() else root
    if not any(path.is_file() for path in found.rglob("*")):
        raise DataError("ImageEmpty", f"{shown} has no files under /data.", fix="Put the dataset under /data.")
    return found


def _add_layer(registry: Registry, layer: Mapping[str, Any], root: Path, work: Path, room: Room) -> None:
    blob = work / "layer"
    try:
        told = Descriptor.from_json(layer)
    except ValueError as error:
        why = f"{registry.shown} has a layer that is none: {error}."
        raise DataError("ImageInvalid", why, fix="Push it again.") from error
    room.take(told.size)
    registry.blob_to(told.digest, told.size, blob)
    title = told.annotations.get(TITLE)
    packed = told.annotations.get(UNPACK) == "true" or told.media_type.endswith("tar+gzip")
    if title and not packed:  # whatever its media type: oras-py calls every plain file a tar
        target = root / inside(title, registry.shown)
        target.parent.mkdir(parents=True, exist_ok=True)
        blob.replace(target)
        return
    lay_over(blob, root, registry.shown, room)
    blob.unlink()
