"""weights: the base model at a pinned revision, as safetensors and tokenizer, in the store, once.

Sources: the Hugging Face hub, an OCI image (KAITO's own, or one that holds such files anywhere), or a Python package
that carries the weights. No pickled weights, no code.
"""

import json
import os
import shutil
from pathlib import Path

from presets.errors import DataError, KaiflowError, NotPermittedError, TryAgainError
from presets.recipe import ModelRecipe, PackagedWeights
from steps import logs
from steps.contract import Context, Request, Result, content_key
from steps.store import Manifest, open_store, publish
from steps.weights_image import WANTED_FILES, from_image, pinned

ARTIFACT_TYPE = "application/vnd.kaiflow.weights.v1"


def run(request: Request, context: Context) -> Result:
    """Put the weights into the store, or find them there."""
    model = request.part("model", ModelRecipe)
    store = open_store(request.store)
    image = pinned(model.weights_image) if model.weights_image else None
    tag = f"kaiflow-weights-{content_key('weights', **_identity(model, image))}"
    known = store.find(tag)
    if known is not None:
        logs.event("reused", weights=known.digest)
        return _result(known, cached=True)
    folder = context.work / "weights"
    if image is not None:
        revision = from_image(image, context.work / "image", folder)
    elif model.package:
        revision = _from_package(model.package, folder)
    else:
        revision = _from_hub(model, folder)
    files = {
        p.relative_to(folder).as_posix(): p
        for p in sorted(folder.rglob("*"))
        if p.is_file() and ".cache" not in p.parts
    }
    annotations = {"kaiflow.model": model.hugging_face_id, "kaiflow.model.revision": revision}
    manifest = publish(store, ARTIFACT_TYPE, files, annotations, [tag])
    shutil.rmtree(folder)  # the store holds the only copy
    context.progress(1, 1)
    return _result(manifest, cached=False)


def _identity(model: ModelRecipe, image: str | None) -> dict[str, str | None]:
    if image is not None:
        return {"image": image.rpartition("@")[2]}
    return {
        "id": model.hugging_face_id,
        "revision": model.revision,
        "package": model.package.sha256 if model.package else None,
    }


def _from_package(package: PackagedWeights, folder: Path) -> str:
    """Convert the GGUF file of an installed package; its bytes are checked against the catalogue's digest."""
    from steps.gguf_weights import convert
    from steps.package_files import find_in_package

    source = find_in_package(package)
    logs.event("converting", source=source.name, package=package.name)
    convert(source, folder)
    return f"{package.name}-{package.version}"


def _from_hub(model: ModelRecipe, folder: Path) -> str:
    """Download the snapshot of the pinned revision; return the commit it stands for."""
    import httpx
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

    token = os.environ.get("HF_TOKEN") or None
    try:
        commit = HfApi(token=token).model_info(model.hugging_face_id, revision=model.revision, timeout=30).sha
        snapshot_download(
            model.hugging_face_id, revision=commit, allow_patterns=list(WANTED_FILES), local_dir=folder, token=token
        )
    except HfHubHTTPError as error:
        raise _hub_error(model, error.response.status_code) from error
    except (httpx.HTTPError, OSError, LocalEntryNotFoundError, OfflineModeIsEnabled) as error:
        raise TryAgainError(
            "HubUnreachable",
            f"The model hub does not answer ({type(error).__name__}).",
            fix="Check the network and HF_ENDPOINT, or choose a preset whose weights come from a package.",
        ) from error
    if not any(folder.glob("*.safetensors")):
        raise DataError(
            "NoSafetensors", f"{model.hugging_face_id} has no safetensors weights.", fix="Choose a revision that has."
        )
    return str(commit)


def _hub_error(model: ModelRecipe, status: int) -> KaiflowError:
    if status in (401, 403):
        return NotPermittedError(
            "ModelForbidden",
            f"The hub refuses {model.hugging_face_id} ({status}).",
            fix="Accept the licence on the model's page and set HF_TOKEN to a token that may read it.",
        )
    if status == 404:
        return DataError(
            "ModelNotFound",
            f"The hub has no {model.hugging_face_id} at {model.revision}.",
            fix="Check id and revision.",
        )
    return TryAgainError("HubUnreachable", f"The model hub answered {status}.", fix="The step tries again by itself.")


def _result(weights: Manifest, *, cached: bool) -> Result:
    size = sum(layer.size for layer in weights.layers)
    logs.event("weights", digest=weights.digest, bytes=size, annotations=json.dumps(dict(weights.annotations)))
    return Result(outputs={"weights": weights.digest, "cached": str(cached).lower()}, figures={"bytes": size})
