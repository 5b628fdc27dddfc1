"""The base model for whoever computes with it: out of the store, a mounted image, or straight from its origin.

The weights step leaves one of two artifacts: the files, or only where to take them from, pinned.
"""

import json
import shutil
from pathlib import Path

from presets.errors import DataError
from steps import logs
from steps.contract import IMAGE_FOLDER
from steps.folder_of import folder_of
from steps.model_files import is_wanted
from steps.store import Manifest, Store
from steps.weights_image import model_folder
from steps.weights_origin import Origin, take

FILES_TYPE = "application/vnd.kaiflow.weights.v1"
ORIGIN_TYPE = "application/vnd.kaiflow.weights-origin.v1"
ORIGIN_FILE = "origin.json"


def lay_out(store: Store, weights: Manifest, work: Path, folder: Path) -> None:
    """Put the base model's files, and no others, into ``folder``, links where they can be.

    ``work`` is for what lies for a while.

    Raises:
        KaiflowError: they cannot be had.
    """
    folder_of(folder, weights.digest)
    if weights.artifact_type != ORIGIN_TYPE:
        store.check_out(weights, folder)
        return
    origin = read_origin(store, weights)
    if origin.kind == "image" and IMAGE_FOLDER.is_dir():
        _link(model_folder(IMAGE_FOLDER, origin.name), folder)
        logs.event("mounted", image=f"{origin.name}@{origin.revision}")
        return
    partial = folder.with_name(f".{folder.name}.taking")
    if not folder.is_dir():  # whole, since it is renamed last
        shutil.rmtree(partial, ignore_errors=True)
        take(origin, work, partial)
        partial.rename(folder)
    logs.event("taken", origin=f"{origin.kind} {origin.name} {origin.revision}")


def read_origin(store: Store, weights: Manifest) -> Origin:
    """Return where the weights step said that the files are.

    Raises:
        DataError: the artifact does not say it.
    """
    try:
        with store.open_blob(weights.layers[0].digest) as reader:
            return Origin(**json.loads(reader.read(1 << 16)))
    except (ValueError, TypeError, IndexError) as error:
        raise DataError(
            "ArtifactCorrupt", f"{weights.digest} does not say where the weights are.", fix="Run the file again."
        ) from error


def _link(source: Path, folder: Path) -> None:
    """Link the mounted files into the folder: the volume is read-only, and libraries write beside a model."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in filter(is_wanted, source.iterdir()):
        (folder / path.name).unlink(missing_ok=True)
        (folder / path.name).symlink_to(path)
