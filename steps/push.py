"""push: the gate, then the adapter as an image under the user's tag.

The tag moves last: whoever reads it finds either the old adapter or the new one, whole.
"""

import math

from presets.errors import DataError
from presets.names import parse_image
from presets.recipe import DataRecipe, EvaluationRecipe, ModelRecipe, OutputRecipe
from steps import logs
from steps.adapter_image import build_layer, created_at, publish_image
from steps.contract import Context, Request, Result, content_key
from steps.store import Manifest, Store, open_store, require

MARGIN_STANDARD_ERRORS = 2.0  # a difference nearer to zero may be chance


def run(request: Request, context: Context) -> Result:
    """Judge the run, then publish it; nothing is written when the same image is there already."""
    store = open_store(request.store)
    adapter = require(store, request.inputs["run"], "adapter")
    verdict, reason = judge(adapter, request.part("evaluation", EvaluationRecipe))
    logs.event("gate", verdict=verdict, reason=reason)
    if verdict == "refused":
        raise DataError(
            "GateRefused",
            f"The tuned model is not published: {reason}.",
            fix="Mend the data or the training, or set gate: warn.",
        )
    output = request.part("output", OutputRecipe)
    tag = image_tag(output)
    cache_tag = f"kaiflow-image-{content_key('push', run=adapter.digest, created=created_at())}"
    known = store.find(cache_tag)
    if known is not None:
        _move_tag(store, known, tag)
        return _result(output, known, verdict, cached=True)
    folder = context.work / "adapter"
    store.check_out(adapter, folder)
    files = {p.relative_to(folder).as_posix(): p for p in folder.rglob("*") if p.is_file()}
    layer = build_layer(files, context.work / "layer.tar.gz")
    image = publish_image(store, layer, _annotations(request, adapter), created_at(), [cache_tag, tag])
    layer.path.unlink()
    context.progress(1, 1)
    return _result(output, image, verdict, cached=False)


def judge(adapter: Manifest, evaluation: EvaluationRecipe) -> tuple[str, str]:
    """Return the gate's verdict — passed, warned, refused, off — and its reason.

    Passed: the tuned model's held-out loss is below the base's by more than two standard errors of the
    paired difference.
    """
    if evaluation.gate == "off":
        return "off", "the gate is off"
    notes = adapter.annotations
    if not notes["kaiflow.run.base-loss"]:
        worse, reason = True, "no rows were held out, so that nothing was compared"
    else:
        difference, error = float(notes["kaiflow.run.difference"]), float(notes["kaiflow.run.standard-error"])
        if not math.isfinite(difference):
            return "refused", "the held-out loss of the tuned model is not a number"
        worse = not difference < -MARGIN_STANDARD_ERRORS * error
        losses = f"base {notes['kaiflow.run.base-loss']}, tuned {notes['kaiflow.run.tuned-loss']}"
        reason = f"held-out loss: {losses}, paired difference {difference:+.4g} ± {error:.2g}"
    if not worse:
        return "passed", reason
    return ("refused" if evaluation.gate == "enforce" else "warned"), reason


def image_tag(output: OutputRecipe) -> str:
    """Return the tag that the user asked for, ``latest`` where none was."""
    reference = parse_image(output.image) if output.image else None
    return (reference.tag if reference else "") or "latest"


def _move_tag(store: Store, image: Manifest, tag: str) -> None:
    current = store.find(tag)
    if current is None or current.digest != image.digest:
        with store.open_blob(image.digest) as reader:
            store.add_manifest(reader.read(), [tag])


def _annotations(request: Request, adapter: Manifest) -> dict[str, str]:
    model = request.part("model", ModelRecipe)
    data = request.part("data", DataRecipe)
    return {
        "sh.kaito.model.name": model.preset,
        "org.opencontainers.image.title": f"{request.workspace.name} LoRA adapter",
        "org.opencontainers.image.licenses": model.license,
        "kaiflow.model": model.hugging_face_id,
        "kaiflow.model.revision": model.revision,
        "kaiflow.data.held-out-fraction": str(data.held_out_fraction),
        **adapter.annotations,
        "kaiflow.run": adapter.digest,
    }


def _result(output: OutputRecipe, image: Manifest, verdict: str, *, cached: bool) -> Result:
    logs.event("image", digest=image.digest, tag=image_tag(output), cached=cached)
    return Result(
        outputs={
            "image": output.image or image_tag(output),
            "digest": image.digest,
            "verdict": verdict,
            "cached": str(cached).lower(),
        }
    )
