"""tune: QLoRA on the audited rows, base and tuned scored on the held-out ones, the adapter in the store.

Nothing heavy is imported until the store has said that the run is not there yet.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from presets.errors import DataError
from presets.recipe import DataRecipe, EvaluationRecipe, LoraRecipe, ModelRecipe, QuantizationRecipe, TrainingRecipe
from steps import logs
from steps.contract import Context, Request, Result, content_key
from steps.messages import Conversation
from steps.store import Manifest, open_store, publish, require

ARTIFACT_TYPE = "application/vnd.kaiflow.adapter.v1"
METRICS_FILE = "metrics.jsonl"
EVALUATION_FILE = "evaluation.json"
TIMINGS = ("train_seconds", "tokens_per_second")  # not in the artifact: the same run has the same digest


def run(request: Request, context: Context) -> Result:
    """Train and evaluate, or find the same run in the store."""
    store = open_store(request.store)
    dataset = require(store, request.inputs["dataset"], "dataset")
    key = run_key(request, dataset.annotations["kaiflow.dataset.content"])
    known = store.find(f"kaiflow-run-{key}")
    if known is not None:
        logs.event("reused", run=known.digest)
        return _result(known, cached=True)
    weights = require(store, request.inputs["weights"], "base model")
    data_folder, weights_folder = context.work / "data", context.work / "weights"
    store.check_out(dataset, data_folder)
    store.check_out(weights, weights_folder)
    output, figures = _train(request, context, key, data_folder, weights_folder)
    files = {p.relative_to(output).as_posix(): p for p in sorted(output.rglob("*")) if p.is_file()}
    annotations = {
        "kaiflow.run.key": key,
        "kaiflow.run.dataset": dataset.digest,
        "kaiflow.run.weights": weights.digest,
        "kaiflow.run.base-loss": _number(figures["base"]["loss"]) if figures["base"] else "",
        "kaiflow.run.tuned-loss": _number(figures["tuned"]["loss"]) if figures["tuned"] else "",
        "kaiflow.run.difference": _number(figures["difference"]) if figures["base"] else "",
        "kaiflow.run.standard-error": _number(figures["standard_error"]) if figures["base"] else "",
    }
    manifest = publish(store, ARTIFACT_TYPE, files, annotations, [f"kaiflow-run-{key}"])
    return _result(manifest, cached=False, figures={name: figures[name] for name in TIMINGS})


def run_key(request: Request, content: str) -> str:
    """Return the content key: the rows, the base, and every part of the Recipe that training reads."""
    parts = {name: request.recipe[name] for name in ("model", "quantization", "lora", "training")}
    order = [request.recipe["data"][name] for name in ("shuffle", "seed")]
    return content_key("tune", content=content, weights=request.inputs["weights"], shuffle=order, **parts)


def _train(request: Request, context: Context, key: str, data: Path, weights: Path) -> tuple[Path, dict[str, Any]]:
    from steps.adapter import add_adapter, save_adapter
    from steps.base_model import load_base, load_tokenizer
    from steps.chat import Encoded, encode
    from steps.evaluation import assess, compared
    from steps.model_card import write_card
    from steps.quiet import quiet_libraries
    from steps.split import HELD_OUT_FILE, TRAIN_FILE, load
    from steps.training import train

    quiet_libraries()
    model_recipe = request.part("model", ModelRecipe)
    training = request.part("training", TrainingRecipe)
    tokenizer = load_tokenizer(weights, model_recipe)

    def encoded(rows: list[Conversation]) -> list[Encoded]:
        only, limit = training.assistant_only_loss, training.max_length_tokens
        return [encode(tokenizer, row, assistant_only=only, max_tokens=limit) for row in rows]

    rows = encoded(load(data / TRAIN_FILE))
    usable = [row for row in rows if row.supervised]
    if not usable:
        raise DataError(
            "NothingSupervised",
            f"No answer begins within the first {training.max_length_tokens} tokens of any row.",
            fix="Raise TrainingArguments.max_length.",
        )
    held_out = load(data / HELD_OUT_FILE)
    scored = [row for row in encoded(held_out) if row.supervised]
    conversations = [row for row in held_out if not row.is_text]
    questions = conversations[: request.part("evaluation", EvaluationRecipe).sample_prompts]
    logs.event("tokenised", rows=len(usable), cut_away=len(rows) - len(usable), held_out=len(scored))
    base_model = load_base(weights, request.part("quantization", QuantizationRecipe))
    model = add_adapter(base_model, request.part("lora", LoraRecipe), training.seed)
    with model.disable_adapter():
        base = assess("base", model, tokenizer, scored, questions)
    checkpoints = context.work / "checkpoints" / key
    data_recipe = request.part("data", DataRecipe)
    figures = train(model, usable, training, data_recipe, tokenizer.pad_token_id, checkpoints, context.progress)
    figures |= compared(base, assess("tuned", model, tokenizer, scored, questions))
    output = context.work / "adapter" / key
    save_adapter(model, tokenizer, model_recipe, output)
    _write_figures(output, figures)
    write_card(output, model_recipe, data_recipe, training, figures)
    return output, figures


def _write_figures(output: Path, figures: dict[str, Any]) -> None:
    history = figures.pop("history")
    figures = {name: value for name, value in figures.items() if name not in TIMINGS}
    (output / METRICS_FILE).write_text("".join(json.dumps(entry) + "\n" for entry in history))
    (output / EVALUATION_FILE).write_text(json.dumps(figures, indent=1, sort_keys=True))


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
