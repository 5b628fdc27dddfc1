"""tune: QLoRA on the audited rows, base and tuned scored on the held-out ones, the adapter in the store.

Nothing heavy is imported until the store has said that the run is not there yet.
"""

import hashlib
import math
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from presets.recipe import BudgetRecipe, EvaluationRecipe
from steps import comparisons, logs
from steps.base_weights import lay_out
from steps.checkpoint_files import find_checkpoint, restore
from steps.content_keys import ADAPTER_TYPE, decides_training, run_key, run_tag
from steps.contract import (
    PUBLISHED_FOLDER,
    RECIPE_FILE,
    REPORT_FILE,
    REPORT_TYPE,
    Context,
    Request,
    Result,
)
from steps.launch import processes_here, train_here, train_together
from steps.machine import gpus
from steps.run_report import report
from steps.store import Manifest, Store, canonical, open_store, publish, require

STEPS = "kaiflow.run.steps"
REVISION = "kaiflow.model.revision"
STOPPED_AT = "kaiflow.run.stopped-at-seconds"  # the budget that has ended the run; 0: the pod's deadline has
# Not in the artifact: the same run has the same digest, wherever and however often it was interrupted.
OF_THIS_MACHINE = ("train_seconds", "tokens_per_second", "peak_memory_bytes", "levers")


@dataclass(frozen=True, slots=True)
class Tags:
    """Where a run's artifacts are found."""

    key: str

    @property
    def run(self) -> str:
        """Its newest checkpoint, and at last its adapter."""
        return run_tag(self.key)

    @property
    def partial(self) -> str:
        """The adapter of a run that its budget ended; the checkpoint stays, for a larger one."""
        return f"kaiflow-partial-{self.key}"

    @property
    def report(self) -> str:
        """Its page."""
        return f"kaiflow-report-{self.key}"


def run(request: Request, context: Context) -> Result:
    """Train and evaluate, or find the same run in the store: finished, or its newest checkpoint.

    One that was never compared with what is published now is trained once more, which gives the same and compares it.
    """
    store = open_store(request.store)
    dataset = require(store, request.inputs["dataset"], "dataset")
    count = processes_here(len(gpus()))
    key = run_key(request.recipe, request.inputs["weights"], dataset.annotations["kaiflow.dataset.content"], count)
    tags, budget = Tags(key), request.part("budget", BudgetRecipe)
    published = request.inputs["published"]
    found = _finished(store, tags.run) or _as_far(store, tags.partial, budget)
    gate = request.part("evaluation", EvaluationRecipe).gate
    against = comparisons.known(store, key, published, found, gate) if found is not None else None
    if found is not None and against is not None:
        logs.event("reused", run=found.digest)
        _lay_out_report(store, tags.report, context.work)
        return _result(found, cached=True, against=against)
    weights = require(store, request.inputs["weights"], "base model")
    store.check_out(dataset, context.work / "data")
    lay_out(store, weights, context.work / "image", context.work / "weights")
    checkpoints, output = context.work / "checkpoints" / key, context.work / "adapter" / key
    restore(store, find_checkpoint(store, tags.run), checkpoints)
    _lay_out_published(store, published, context.work / PUBLISHED_FOLDER)
    pinned = _with_revision(request, weights.annotations[REVISION])
    if count == 1:
        figures = train_here(pinned, context, key, store, tags.run)
    else:
        figures = train_together(pinned, context, key, tags.run, count)
    for licence in (context.work / "weights").glob("LICENSE*"):  # of the base, which goes with what is made of it
        shutil.copyfile(licence, output / f"BASE_{licence.name}")
    recipe = canonical(decides_training(request.recipe, count))  # rows and base aside: what is equal has one digest
    annotations = {
        "kaiflow.run.key": key,
        "kaiflow.run.dataset": dataset.digest,
        "kaiflow.run.weights": weights.digest,
        "kaiflow.run.recipe": f"sha256:{hashlib.sha256(recipe).hexdigest()}",
        REVISION: weights.annotations[REVISION],
        "kaiflow.version": version("kaiflow"),
        STEPS: f"{figures['steps']}/{figures['total_steps']}",
        **_losses(figures),
    }
    comparisons.keep(store, key, published, figures["against_published"], context.work)
    files = {p.relative_to(output).as_posix(): p for p in sorted(output.rglob("*")) if p.is_file()}
    if figures["stopped_by"]:  # the checkpoint stays
        annotations[STOPPED_AT] = str(budget.max_seconds or 0)
        manifest = publish(store, ADAPTER_TYPE, files, annotations, [tags.partial])
    else:
        checkpoint = find_checkpoint(store, tags.run)
        manifest = publish(store, ADAPTER_TYPE, files, annotations, [tags.run])
        if checkpoint is not None:
            store.discard(checkpoint)
        shutil.rmtree(checkpoints, ignore_errors=True)
    page = report(request.workspace.name, figures, request.recipe)
    _report(store, page, recipe, context.work, manifest, tags.report)
    kept = {name: figures[name] for name in OF_THIS_MACHINE}
    return _result(manifest, cached=False, figures=kept, against=figures["against_published"])


def _with_revision(request: Request, revision: str) -> Request:
    """Return the request with the base's revision as the weights step has pinned it, for all that tells of it."""
    model = {**request.recipe["model"], "revision": revision}
    return request.model_copy(update={"recipe": {**request.recipe, "model": model}})


def _lay_out_published(store: Store, run: str, folder: Path) -> None:
    """Lay out the adapter that is published, which the new one is compared with; it may be gone."""
    shutil.rmtree(folder, ignore_errors=True)
    published = store.find(run) if run else None
    if published is not None and published.artifact_type == ADAPTER_TYPE:
        store.check_out(published, folder)


def _finished(store: Store, tag: str) -> Manifest | None:
    found = store.find(tag)
    return found if found is not None and found.artifact_type == ADAPTER_TYPE else None


def _as_far(store: Store, tag: str, budget: BudgetRecipe) -> Manifest | None:
    """Return what a budget as large as this one, or larger, has left of the run."""
    found = store.find(tag)
    if found is None or budget.max_seconds is None or budget.max_seconds > float(found.annotations[STOPPED_AT]):
        return None
    return found


def _report(store: Store, page: str, recipe: bytes, work: Path, run: Manifest, tag: str) -> None:
    """Lay the page beside the work, and with the recipe into the store, as an artifact that tells of the run."""
    contents = {REPORT_FILE: page.encode(), RECIPE_FILE: recipe}
    for name, content in contents.items():
        (work / name).write_bytes(content)
    files = {name: work / name for name in contents}
    publish(store, REPORT_TYPE, files, {"kaiflow.run": run.digest}, [tag], subject=run)


def _lay_out_report(store: Store, tag: str, work: Path) -> None:
    """Lay the page of a run that is found again where a run's page lies; another run's must not stay there."""
    for name in (REPORT_FILE, RECIPE_FILE):
        (work / name).unlink(missing_ok=True)
    page = store.find(tag)
    if page is not None and page.artifact_type == REPORT_TYPE:
        shutil.rmtree(work / "found", ignore_errors=True)
        store.check_out(page, work / "found")
        for path in (work / "found").iterdir():
            shutil.copyfile(path, work / path.name)


def _losses(figures: dict[str, Any]) -> dict[str, str]:
    """Return the figures that the gate reads; empty where no rows were held out."""
    compared = bool(figures["base"])
    numbers = {
        "base-loss": figures["base"]["loss"] if compared else None,
        "tuned-loss": figures["tuned"]["loss"] if compared else None,
        "difference": figures["difference"] if compared else None,
        "standard-error": figures["standard_error"] if compared else None,
    }
    return {f"kaiflow.run.{name}": "" if value is None else _number(value) for name, value in numbers.items()}


def _number(value: float) -> str:
    return f"{value:.6g}" if math.isfinite(value) else "nan"


def _result(manifest: Manifest, *, cached: bool, figures: Mapping[str, Any] | None = None, against: str = "") -> Result:
    notes = manifest.annotations
    return Result(
        outputs={
            "run": manifest.digest,
            "base-loss": notes["kaiflow.run.base-loss"],
            "tuned-loss": notes["kaiflow.run.tuned-loss"],
            "steps": notes[STEPS],
            "against-published": against,
            "cached": str(cached).lower(),
        },
        figures=figures or {},
    )
