"""Where a base model's files come from, pinned to the byte, and how they get into a folder.

The Hugging Face hub at a commit, an OCI image at a digest, a Python package whose file has a known digest, or a folder
of this machine by what is in it. No pickled weights, no code.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from presets.errors import LATER, DataError, KaiflowError, NotPermittedError, TryAgainError
from presets.os_errors import explain_os_error
from presets.recipe import ModelRecipe, PackagedWeights
from steps import logs, weights_folder
from steps.hub_transport import transport_errors
from steps.model_files import UNWANTED_FILES, WANTED_FILES, require_whole
from steps.weights_image import from_image, pinned

COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True, slots=True)
class Origin:
    """A place that holds the model's files, and exactly which of them."""

    kind: Literal["hub", "image", "package", "folder"]
    name: str  # id on the hub, image without its digest, distribution, path
    revision: str  # commit, digest, version, digest of all files
    file: str = ""  # of a package
    sha256: str = ""  # of that file

    def to_json(self) -> dict[str, Any]:
        """Return the origin as it is written into the store."""
        return asdict(self)

    def key(self) -> dict[str, Any]:
        """Return what of it decides what the files are: not where the folder lies."""
        return {**self.to_json(), **({"name": ""} if self.kind == "folder" else {})}


def pin(model: ModelRecipe) -> Origin:
    """Return the origin of the model's files; asks the hub or the registry only where a name may move.

    Raises:
        KaiflowError: there is no such model, or we may not see it.
    """
    if model.folder:
        return Origin("folder", model.folder, weights_folder.pinned(Path(model.folder)))
    if model.weights_image:
        name, _, digest = pinned(model.weights_image).rpartition("@")
        return Origin("image", name, digest)
    if model.package:
        p = model.package
        return Origin("package", p.name, p.version, p.file, p.sha256)
    commit = model.revision if COMMIT.fullmatch(model.revision) else _hub_commit(model)
    return Origin("hub", model.hugging_face_id, commit)


def take(origin: Origin, work: Path, folder: Path) -> None:
    """Put the model's files into ``folder``; ``work`` is for what lies only for a while.

    Raises:
        KaiflowError: they cannot be had, or there are no safetensors among them.
    """
    if origin.kind == "image":
        from_image(f"{origin.name}@{origin.revision}", work, folder)
    elif origin.kind == "folder":
        weights_folder.from_folder(Path(origin.name), folder)
    elif origin.kind == "package":
        _from_package(PackagedWeights(origin.name, origin.revision, origin.file, origin.sha256), folder)
    else:
        _from_hub(origin, folder)
    require_whole(folder, origin.name)


def _from_package(package: PackagedWeights, folder: Path) -> None:
    """Convert the GGUF file of an installed package; its bytes are checked against the catalogue's digest."""
    from steps.gguf_weights import convert
    from steps.package_files import find_in_package

    source = find_in_package(package)
    logs.event("converting", source=source.name, package=package.name)
    convert(source, folder)


def _hub_commit(model: ModelRecipe) -> str:
    """Return the commit that the model's revision stands for now."""
    from huggingface_hub import HfApi

    with _hub_errors(model.hugging_face_id, model.revision):
        api = HfApi(token=os.environ.get("HF_TOKEN") or None)
        return str(api.model_info(model.hugging_face_id, revision=model.revision, timeout=30).sha)


def _from_hub(origin: Origin, folder: Path) -> None:
    """Download the snapshot of the commit."""
    from huggingface_hub import snapshot_download

    with _hub_errors(origin.name, origin.revision):
        snapshot_download(
            origin.name, revision=origin.revision, allow_patterns=list(WANTED_FILES),
            ignore_patterns=["*/*", *UNWANTED_FILES], local_dir=folder, token=os.environ.get("HF_TOKEN") or None,
        )  # fmt: skip


@contextmanager
def _hub_errors(model: str, revision: str) -> Iterator[None]:
    """Turn what goes wrong with the hub into errors that say what to do."""
    from huggingface_hub.errors import HfHubHTTPError

    try:
        yield
    except HfHubHTTPError as error:
        raise _refused(model, revision, error.response.status_code) from error
    except transport_errors() as error:
        if explain_os_error(error):  # this machine's fault
            raise
        raise TryAgainError(
            "HubUnreachable",
            f"The model hub does not answer ({type(error).__name__}).",
            fix="Check the network and HF_ENDPOINT, or choose a preset whose weights come from a package.",
        ) from error


def _refused(model: str, revision: str, status: int) -> KaiflowError:
    if status in (401, 403):
        return NotPermittedError(
            "ModelForbidden",
            f"The hub refuses {model} ({status}).",
            fix="Accept the licence on the model's page; name a Secret with the key HF_TOKEN, whose token may read it,"
            " in tuning.preset.presetOptions.modelAccessSecret (on your machine: set HF_TOKEN).",
        )
    if status == 404:
        return DataError("ModelNotFound", f"The hub has no {model} at {revision}.", fix="Check id and revision.")
    return TryAgainError("HubUnreachable", f"The model hub answered {status}.", fix=LATER)
