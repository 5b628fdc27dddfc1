"""weights: the base model at a pinned revision, in the store once, or only where it is to be taken from.

Staged are the files where somebody keeps them: on one's own machine, or in a cache repository that was configured.
Elsewhere tune and serve take them straight from their origin, and the store says from which, to the byte.
"""

import json
import shutil
from pathlib import Path

from presets.errors import DataError
from presets.recipe import ModelRecipe
from steps import logs
from steps.base_weights import FILES_TYPE, ORIGIN_FILE, ORIGIN_TYPE
from steps.content_keys import weights_tag
from steps.contract import Context, Request, Result
from steps.folder_of import folder_of
from steps.store import TITLE, Manifest, Store, canonical, open_store, publish
from steps.weights_folder import digest_of
from steps.weights_origin import Origin, pin, take


def run(request: Request, context: Context) -> Result:
    """Put the weights, or their origin, into the store, or find them there."""
    model = request.part("model", ModelRecipe)
    store, staged = open_store(request.store), request.inputs["stage"] == "true"
    origin = pin(model)
    tag = weights_tag(origin.key(), staged=staged)
    known = store.find(tag)
    if known is not None:
        logs.event("reused", weights=known.digest)
        return _result(known, cached=True)
    notes = {"kaiflow.model": model.hugging_face_id, "kaiflow.model.revision": _revision(origin)}
    if staged:
        manifest = _stage(store, origin, context.work, notes, tag)
    else:
        path = context.work / ORIGIN_FILE
        path.write_bytes(canonical(origin.to_json()))
        manifest = publish(store, ORIGIN_TYPE, {ORIGIN_FILE: path}, notes, [tag])
    context.progress(1, 1)
    return _result(manifest, cached=False)


def _stage(store: Store, origin: Origin, work: Path, notes: dict[str, str], tag: str) -> Manifest:
    folder = folder_of(work / "weights", tag)
    take(origin, work / "image", folder)
    files = {
        p.relative_to(folder).as_posix(): p
        for p in sorted(folder.rglob("*"))
        if p.is_file() and ".cache" not in p.relative_to(folder).parts  # the hub's own
    }
    manifest = publish(store, FILES_TYPE, files, notes, [])
    shutil.rmtree(folder)  # the store holds the only copy, but for a folder of the user's
    if (
        origin.kind == "folder"
        and digest_of((b.annotations[TITLE], b.digest) for b in manifest.layers) != origin.revision
    ):
        store.discard(manifest)
        raise DataError("WeightsChanged", f"{origin.name} changed as it was read.", fix="Run the file again.")
    with store.open_blob(manifest.digest) as reader:
        return store.add_manifest(reader.read(), [tag])


def _revision(origin: Origin) -> str:
    return f"{origin.name}-{origin.revision}" if origin.kind == "package" else origin.revision


def _result(weights: Manifest, *, cached: bool) -> Result:
    size = sum(layer.size for layer in weights.layers)
    logs.event("weights", digest=weights.digest, bytes=size, annotations=json.dumps(dict(weights.annotations)))
    return Result(outputs={"weights": weights.digest, "cached": str(cached).lower()}, figures={"bytes": size})
