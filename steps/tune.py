"""tune: QLoRA on the audited rows, base and tuned scored on the held-out ones, the adapter in the store.

Nothing heavy is imported until the store has said that the run is not there yet.
"""

import json
import math
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from presets.errors import DataError
from presets.recipe import DataRecipe, EvaluationRecipe, LoraRecipe, ModelRecipe, QuantizationRecipe, TrainingRecipe
from steps import logs
from steps.contract import REPORT_FILE, Context, Request, Result, content_key
from steps.messages import Conversation
from steps.run_report import report
from steps.store import Manifest, Store, open_store, publish, require

if TYPE_CHECKING:
    from steps.chat import Encoded
    from steps.checkpoints import Checkpoints

ARTIFACT_TYPE = "application/vnd.kaiflow.adapter.v1"
REPORT_TYPE = "application/vnd.kaiflow.report.v1"
METRICS_FILE = "metrics.jsonl"
EVALUATION_FILE = "evaluation.json"
# Not in the artifact: the same run has the same digest, wherever and however often it was interrupted.
OF_THIS_MACHINE = ("train_seconds", "tokens_per_second", "peak_memory_bytes", "micro_batch")


def run(request: Request, context: Context) -> Result:
    """Train and evaluate, or find the same run in the store: finished, or its newest checkpoint."""
    store = open_store(request.store)
    dataset = require(store, request.inputs["dataset"], "dataset")
    key = run_key(request, dataset.annotations["kaiflow.dataset.content"])
    tag = f"kaiflow-run-{key}"  # of its newest checkpoint, and at last of its adapter
    known = store.find(tag)
    if known is not None and known.artifact_type == ARTIFACT_TYPE:
        logs.event("reused", run=known.digest)
        return _result(known, cached=True)
    from steps.quiet import quiet_libraries

    quiet_libraries()  # before others are imported, which speak while they are
    from steps.checkpoints import Checkpoints, restore

    weights = require(store, request.inputs["weights"], "base model")
    job = Job(request, context, context.work / "checkpoints" / key, context.work / "adapter" / key)
    store.check_out(dataset, job.data)
    store.check_out(weights, job.weights)
    checkpoint = restore(store, known, job.checkpoints)
    saving = Checkpoints(store, tag, replacing=checkpoint)
    try:
        figures = _train(job, saving)
    finally:
        saving.close()
    files = {p.relative_to(job.output).as_posix(): p for p in sorted(job.output.rglob("*")) if p.is_file()}
    annotations = {
        "kaiflow.run.key": key,
        "kaiflow.run.dataset": dataset.digest,
        "kaiflow.run.weights": weights.digest,
        "kaiflow.run.base-loss": _number(figures["base"]["loss"]) if figures["base"] else "",
        "kaiflow.run.tuned-loss": _number(figures["tuned"]["loss"]) if figures["tuned"] else "",
        "kaiflow.run.difference": _number(figures["difference"]) if figures["base"] else "",
        "kaiflow.run.standard-error": _number(figures["standard_error"]) if figures["base"] else "",
    }
    manifest = publish(store, ARTIFACT_TYPE, files, annotations, [tag])
    saving.discard()
    shutil.rmtree(job.checkpoints, ignore_errors=True)
    _report(store, job, figures, manifest, f"kaiflow-report-{key}")
    return _result(manifest, cached=False, figures={name: figures[name] for name in OF_THIS_MACHINE})


@dataclass(frozen=True, slots=True)
class Job:
    """One training: what is asked, and the folders it works in."""

    request: Request
    context: Context
    checkpoints: Path
    output: Path

    @property
    def data(self) -> Path:
        """Folder of the two sides of the dataset."""
        return self.context.work / "data"

    @property
    def weights(self) -> Path:
        """Folder of the base model."""
        return self.context.work / "weights"


def run_key(request: Request, content: str) -> str:
    """Return the content key: the rows, the base, and every part of the Recipe that training reads."""
    parts = {name: request.recipe[name] for name in ("model", "quantization", "lora", "training")}
    order = [request.recipe["data"][name] for name in ("shuffle", "seed")]
    return content_key("tune", content=content, weights=request.inputs["weights"], shuffle=order, **parts)


def _train(job: Job, saving: "Checkpoints") -> dict[str, Any]:
    from steps.adapter import add_adapter, save_adapter
    from steps.base_model import load_base, load_tokenizer
    from steps.best_state import BestState
    from steps.checkpoints import newest_checkpoint
    from steps.evaluation import assess, assessed, compared, end_token_ids, score
    from steps.interruption import Interruption
    from steps.model_card import write_card
    from steps.training import train

    request = job.request
    model_recipe = request.part("model", ModelRecipe)
    training, data = request.part("training", TrainingRecipe), request.part("data", DataRecipe)
    tokenizer = load_tokenizer(job.weights, model_recipe)
    rows = _rows(job, tokenizer, training)
    base_model = load_base(job.weights, request.part("quantization", QuantizationRecipe))
    model = add_adapter(base_model, request.part("lora", LoraRecipe), training.seed)
    with model.disable_adapter():
        base = assess("base", model, tokenizer, rows.held_out, rows.questions)
    interruption = Interruption()
    ends = end_token_ids(model, tokenizer)
    best = BestState(
        model, lambda: score(model, rows.held_out, tokenizer.pad_token_id, ends), lambda: interruption.asked
    )
    best.resume(newest_checkpoint(job.checkpoints))
    callbacks = [interruption, *([best] if rows.held_out else []), saving]
    with interruption.heeded():
        figures = train(
            model, rows.train, training, data, tokenizer.pad_token_id, job.checkpoints, job.context.progress, callbacks
        )
    saving.settle()
    interruption.require_none(figures["steps"], figures["total_steps"])
    found = best.restore(figures["steps"], figures["epochs"]) if rows.held_out else None
    figures |= compared(base, assessed("tuned", found, model, tokenizer, rows.questions))
    figures["scored"] = best.history
    shutil.rmtree(job.output, ignore_errors=True)
    save_adapter(model, tokenizer, model_recipe, job.output)
    _write_figures(job.output, figures)
    write_card(job.output, model_recipe, data, training, figures)
    return figures


def _report(store: Store, job: Job, figures: dict[str, Any], run: Manifest, tag: str) -> None:
    """Lay the report beside the work, and into the store as an artifact of its own: it tells of this machine."""
    path = job.context.work / REPORT_FILE
    path.write_text(report(job.request.workspace.name, figures, job.request.recipe))
    publish(store, REPORT_TYPE, {REPORT_FILE: path}, {"kaiflow.run": run.digest}, [tag])


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows as the model reads them, and a few questions to answer before and after."""

    train: "list[Encoded]"
    held_out: "list[Encoded]"
    questions: list[Conversation]


def _rows(job: Job, tokenizer: Any, training: TrainingRecipe) -> Rows:  # noqa: ANN401
    from steps.chat import encode
    from steps.split import HELD_OUT_FILE, TRAIN_FILE, load

    def encoded(rows: list[Conversation]) -> "list[Encoded]":
        only, limit = training.assistant_only_loss, training.max_length_tokens
        return [encode(tokenizer, row, assistant_only=only, max_tokens=limit) for row in rows]

    rows = encoded(load(job.data / TRAIN_FILE))
    usable = [row for row in rows if row.supervised]
    if not usable:
        raise DataError(
            "NothingSupervised",
            f"No answer begins within the first {training.max_length_tokens} tokens of any row.",
            fix="Raise TrainingArguments.max_length.",
        )
    held_out = load(job.data / HELD_OUT_FILE)
    scored = [row for row in encoded(held_out) if row.supervised]
    conversations = [row for row in held_out if not row.is_text]
    questions = conversations[: job.request.part("evaluation", EvaluationRecipe).sample_prompts]
    logs.event("tokenised", rows=len(usable), cut_away=len(rows) - len(usable), held_out=len(scored))
    return Rows(usable, scored, questions)


def _write_figures(output: Path, figures: dict[str, Any]) -> None:
    kept = {name: value for name, value in figures.items() if name not in (*OF_THIS_MACHINE, "history")}
    (output / METRICS_FILE).write_text("".join(json.dumps(entry) + "\n" for entry in figures["history"]))
    (output / EVALUATION_FILE).write_text(json.dumps(kept, indent=1, sort_keys=True))


def _number(value: float) -> str:
    return f"{value:.6g}" if math.isfinite(value) else "nan"


def _result(manifest: Manifest, *, cached: bool, figures: Mapping[str, Any] | None = None) -> Result:
    notes = manifest.annotations
    return Result(
        outputs={
            "run": manifest.digest,
            "base-loss": notes["kaiflow.run.base-loss"],
            "tuned-loss": notes["kaiflow.run.tuned-loss"],
            "cached": str(cached).lower(),
        },
        figures=figures or {},
    )
