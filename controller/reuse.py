"""Which steps has this machine finished already?  Told by the content keys that the steps themselves use.

Of the run before its dataset and its weights are known. Whether its files have changed since, or a name on the hub
has moved, is for the next run to find out: nothing is asked of anybody here.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any

from controller.observed_steps import output, read_steps
from controller.state import StateFolder
from pipelines.plan import Plan, told
from steps.adapter_image import created_at, image_annotations, owner_of
from steps.content_keys import (
    ADAPTER_TYPE,
    assembled_tag,
    decides_dataset,
    decides_weights,
    run_key,
    run_tag,
)
from steps.contract import Verb
from steps.oci_layout import LayoutStore
from steps.store import Manifest, Store

KEEPING: tuple[Verb, ...] = ("fetch", "weights", "tune", "push")  # the other steps look at what is there
SOURCES = ("urls", "image", "volume_source")


def finished_here(plan: Plan, folder: StateFolder) -> frozenset[Verb]:
    """Return the steps whose work the next run on this machine finds done."""
    last = folder.last_run()
    if last is None or not folder.store.is_dir():
        return frozenset()
    return finished(plan, last, LayoutStore(folder.store))


def finished(plan: Plan, last: Mapping[str, Any], store: Store) -> frozenset[Verb]:
    """Return the steps whose work the next run finds done; ``last`` is the Workflow of the run before, as it ended.

    For a training by one process: by several it is another one. What a budget has ended counts as unfinished.
    """
    dataset = _made_before(plan, last, store, "fetch", "dataset", _decides_fetch)
    weights = _made_before(plan, last, store, "weights", "weights", decides_weights)
    run = _run(plan, store, dataset, weights)
    found: dict[Verb, Manifest | None] = {
        "fetch": dataset, "weights": weights, "tune": run, "push": _image(plan, store, run),
    }  # fmt: skip
    return frozenset(verb for verb, manifest in found.items() if manifest is not None)


def _decides_fetch(recipe: Mapping[str, Any]) -> dict[str, Any]:
    return {**decides_dataset(recipe), "sources": [recipe["data"][key] for key in SOURCES]}


def _made_before(
    plan: Plan,
    last: Mapping[str, Any],
    store: Store,
    verb: Verb,
    name: str,
    decides: Callable[[Mapping[str, Any]], dict[str, Any]],
) -> Manifest | None:
    """Return what the run before has made in this step, if it was asked for the same, by the same version of us."""
    template = next((t for t in last["spec"]["templates"] if t["name"] == verb), None)
    digest = output({step.name: step for step in read_steps(last)}, verb, name)
    if template is None or not digest or template["container"]["image"] != plan.placement.images.step:
        return None
    asked = json.loads(template["inputs"]["artifacts"][0]["raw"]["data"])["recipe"]
    now = json.loads(json.dumps(told(plan, verb)))
    try:
        same = decides(asked) == decides(now)
    except LookupError:  # asked by another version of us
        same = False
    return store.find(digest) if same else None


def _run(plan: Plan, store: Store, dataset: Manifest | None, weights: Manifest | None) -> Manifest | None:
    if dataset is None or weights is None:
        return None
    content = dataset.annotations.get("kaiflow.dataset.content", "")
    run = store.find(run_tag(run_key(told(plan, "tune"), weights.digest, content, processes=1)))
    return run if run is not None and run.artifact_type == ADAPTER_TYPE else None  # else it is a checkpoint


def _image(plan: Plan, store: Store, run: Manifest | None) -> Manifest | None:
    if run is None:
        return None
    recipe = plan.recipe
    owner = owner_of(recipe.namespace, recipe.name)
    notes = image_annotations(recipe.name, owner, recipe.model, recipe.data, run)
    return store.find(assembled_tag(notes, created_at()))
