"""push: the gate, then the adapter as an image under the user's tag.

The tag moves last: whoever reads it finds either the old adapter or the new one, whole.
"""

import math
import re
from collections.abc import Mapping
from pathlib import Path

from presets.errors import ConfigError, DataError
from presets.names import parse_image
from presets.recipe import DataRecipe, EvaluationRecipe, ModelRecipe, OutputRecipe
from steps import logs
from steps.adapter_image import OWNER, build_layer, created_at, image_annotations, owner_of, publish_image
from steps.content_keys import assembled_tag
from steps.contract import OUTPUT_FOLDER, Context, Request, Result
from steps.provenance import attach
from steps.store import LAYOUT_PREFIX, REGISTRY_PREFIX, Manifest, Store, copy, open_store, require

MARGIN_STANDARD_ERRORS = 2.0  # a difference nearer to zero may be chance


def run(request: Request, context: Context) -> Result:
    """Judge the run, then publish it; nothing is written when the same image is there already."""
    store = open_store(request.store)
    adapter = require(store, request.inputs["run"], "adapter")
    verdict, reason = judge(adapter, request.part("evaluation", EvaluationRecipe), request.inputs["against"])
    logs.event("gate", verdict=verdict, reason=reason)
    if verdict == "refused":
        raise DataError(
            "GateRefused",
            f"The tuned model is not published: {reason}.",
            fix="Mend the data or the training, or set gate: warn.",
        )
    output = request.part("output", OutputRecipe)
    tag = image_tag(output)
    elsewhere = _own_place(request, output)
    at_home = elsewhere is None or request.target == "local"  # a cache has no tags of users
    shared = elsewhere or (store if request.target == "cluster" else None)  # one's own state folder is one's own
    if shared is not None:
        require_own_tag(shared, tag, owner(request), output.image or tag)
    model, data = request.part("model", ModelRecipe), request.part("data", DataRecipe)
    annotations = image_annotations(request.workspace.name, owner(request), model, data, adapter)
    cache_tag = assembled_tag(annotations, created_at())
    known = store.find(cache_tag)
    image = known or _made(store, adapter, context.work, annotations, cache_tag)
    provenance = attach(store, image, _repository(request, output))
    tags = [*_own_tags(request, tag), tag]
    if at_home:
        for name in tags:
            _move_tag(store, image, name)
    if elsewhere is not None:
        _push(image, provenance, store, elsewhere, tags, owner(request), output.image or tag)
    context.progress(1, 1)
    return _result(output, image, verdict, cached=known is not None)


def _made(store: Store, adapter: Manifest, work: Path, annotations: Mapping[str, str], tag: str) -> Manifest:
    """Assemble the image of the adapter's files."""
    folder = work / "adapter"
    store.check_out(adapter, folder)
    files = {p.relative_to(folder).as_posix(): p for p in folder.rglob("*") if p.is_file()}
    layer = build_layer(files, work / "layer.tar.gz")
    image = publish_image(store, layer, annotations, created_at(), [tag])
    layer.path.unlink()
    return image


def _repository(request: Request, output: OutputRecipe) -> str:
    reference = parse_image(output.image) if output.image else None
    return reference.repository_with_registry if reference else owner(request)


def judge(adapter: Manifest, evaluation: EvaluationRecipe, against: str) -> tuple[str, str]:
    """Return the gate's verdict — passed, warned, refused, off — and its reason.

    Passed: the tuned model's held-out loss is below the base's by more than two standard errors of the
    paired difference, and on average below that of the published one, where ``against`` compares the two
    (``steps.published``).
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
        if against and not worse:
            published, change, doubt = map(float, against.split())
            worse = not change < 0
            reason += f"; against what is published ({published:.4g}): {change:+.4g} ± {doubt:.2g}"
    if not worse:
        return "passed", reason
    return ("refused" if evaluation.gate == "enforce" else "warned"), reason


def owner(request: Request) -> str:
    """Return whose the image is: the Workspace, in whatever revision."""
    return owner_of(request.workspace.namespace, request.workspace.name)


def require_own_tag(store: Store, tag: str, own: str, shown: str) -> None:
    """Return when the tag is free, or names what this Workspace has pushed before.

    Raises:
        ConfigError: it names something else, which is not ours to replace.
    """
    there = store.find(tag)
    if there is not None and there.annotations.get(OWNER) != own:
        whose = there.annotations.get(OWNER)
        made = f"belongs to the Workspace {whose}" if whose else "was not made by kaiflow"
        raise ConfigError(
            "TagTaken",
            f"{shown} is there already and {made}.",
            fix="Name another tag in tuning.output.image, or remove that image.",
        )


def _own_place(request: Request, output: OutputRecipe) -> Store | None:
    """Return where the image is to go, where that is another place than the store: its repository, or its volume."""
    reference = parse_image(output.image) if output.image else None
    uri = f"{REGISTRY_PREFIX}{reference.repository_with_registry}" if reference else f"{LAYOUT_PREFIX}{OUTPUT_FOLDER}"
    wanted = request.inputs["publish"] == "true" and (reference is not None or output.volume_source is not None)
    return open_store(uri) if wanted and uri != request.store else None


def _own_tags(request: Request, tag: str) -> list[str]:
    """Return the tag of a run of the schedule: the user's, and when the run began; it never moves."""
    if request.inputs["scheduled"] != "true":
        return []
    return [f"{tag[: 128 - 17]}-{re.sub(r'[^0-9TZ]', '', request.inputs['created'])}"]


def _push(
    image: Manifest, provenance: Manifest, store: Store, elsewhere: Store, tags: list[str], own: str, shown: str
) -> None:
    """Copy the image to its registry, then what tells of it, the user's tag last, and read it back.

    Raises:
        ConfigError: the tag is somebody else's by now.
        DataError: the registry has something else under the tag than was pushed.
    """
    copy(image, store, elsewhere, [])
    copy(provenance, store, elsewhere, [])
    require_own_tag(elsewhere, tags[-1], own, shown)  # somebody may have taken it meanwhile
    for name in tags:
        _move_tag(elsewhere, image, name)
    tag = tags[-1]
    found = elsewhere.find(tag)
    if found is None or found.digest != image.digest:
        raise DataError(
            "PushNotSeen",
            f"The registry has {found.digest if found else 'nothing'} under {tag}, and {image.digest} was pushed.",
            fix="Look whether somebody else pushes the same tag, then run the file again.",
        )
    logs.event("pushed", digest=image.digest, tag=tag)


def image_tag(output: OutputRecipe) -> str:
    """Return the tag that the user asked for, ``latest`` where none was."""
    reference = parse_image(output.image) if output.image else None
    return (reference.tag if reference else "") or "latest"


def _move_tag(store: Store, image: Manifest, tag: str) -> None:
    current = store.find(tag)
    if current is None or current.digest != image.digest:
        with store.open_blob(image.digest) as reader:
            store.add_manifest(reader.read(), [tag])


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
