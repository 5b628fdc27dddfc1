"""One training from its files to its figures: rows, base, adapter, loop, comparison, what is written.

Runs in the step's own process, or in one process per GPU of the node (``steps.launch``): then all of them train, and
the first one decides, scores, saves and writes.
"""

import gc
import json
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from presets.errors import ConfigError, DataError
from presets.levers import Levers
from presets.recipe import BudgetRecipe, DataRecipe, EvaluationRecipe, LoraRecipe, ModelRecipe, TrainingRecipe
from presets.recipe import QuantizationRecipe as Quantization
from steps import logs, processes
from steps.adapter import add_adapter, save_adapter
from steps.base_model import load_base, load_tokenizer
from steps.best_state import BestState
from steps.budget import Budget
from steps.chat import Encoded, encode
from steps.checkpoint_files import newest_checkpoint
from steps.checkpoints import Checkpoints
from steps.contract import BEGAN, PUBLISHED_FOLDER, Context, Request
from steps.evaluation import assess, assessed, compared, end_token_ids, score
from steps.interruption import Interruption
from steps.liger import use_liger
from steps.messages import Conversation
from steps.model_card import write_card
from steps.published import Published
from steps.reload import Reload
from steps.split import HELD_OUT_FILE, TRAIN_FILE, load
from steps.store import Store
from steps.training import Task, is_out_of_memory, train
from steps.ways import ways_to_train

METRICS_FILE = "metrics.jsonl"
EVALUATION_FILE = "evaluation.json"
# The same run has the same digest, wherever and however often it was interrupted.
NOT_WRITTEN = ("train_seconds", "tokens_per_second", "peak_memory_bytes", "levers", "history")


@dataclass(frozen=True, slots=True)
class Job:
    """One training: what is asked, and the folders it works in."""

    request: Request
    context: Context
    key: str

    @property
    def data(self) -> Path:
        """Folder of the two sides of the dataset."""
        return self.context.work / "data"

    @property
    def weights(self) -> Path:
        """Folder of the base model."""
        return self.context.work / "weights"

    @property
    def checkpoints(self) -> Path:
        """Folder of the Trainer's checkpoints."""
        return self.context.work / "checkpoints" / self.key

    @property
    def output(self) -> Path:
        """Folder of the adapter."""
        return self.context.work / "adapter" / self.key

    @property
    def published(self) -> Path | None:
        """Folder of the adapter that the new one is compared with, None where there is none."""
        folder = self.context.work / PUBLISHED_FOLDER
        return folder if folder.is_dir() else None


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows as the model reads them, and a few questions to answer before and after."""

    train: list[Encoded]
    held_out: list[Encoded]
    questions: list[Conversation]


def train_first(
    request: Request,
    context: Context,
    key: str,
    store: Store,
    tag: str,
    interruption: Interruption,
    attempt: int | None = None,
) -> dict[str, Any]:
    """Do :func:`train_job` as the first process, or the only one: checkpoints go into the store under ``tag``."""
    saving = Checkpoints(store, tag)
    try:
        return train_job(Job(request, context, key), saving, interruption, attempt)
    finally:
        saving.close()


def train_job(
    job: Job, saving: Checkpoints | None, interruption: Interruption, attempt: int | None = None
) -> dict[str, Any]:
    """Train, compare and write the adapter; return the figures.

    ``saving`` publishes the checkpoints, in the first process; the others return the figures of the loop alone.
    ``attempt`` takes only that way to cut a step: several processes try the next one anew, together.

    Raises:
        TryAgainError: the training was interrupted, and a checkpoint saved.
        DataError: the adapter, loaded again in a fresh process, does not score the same.
    """
    loading_from = time.monotonic()
    rows, prepared = _prepare(job)
    began = float(os.environ.get(BEGAN, loading_from))
    budget = Budget(job.request.part("budget", BudgetRecipe), began, loading_from=loading_from)
    if not processes.is_first():
        return _learn(job, rows, prepared, [], interruption, budget, attempt)
    figures, reload, published = _train_and_compare(job, rows, prepared, saving, interruption, budget, attempt)
    del prepared  # a GPU must hold the model of another process
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    reload.require_same_score()
    return {**figures, "against_published": published.against() if published else ""}


@dataclass(frozen=True, slots=True)
class Prepared:
    """The model with its fresh adapter, and the ways to cut a step on this machine."""

    model: Any
    tokenizer: Any
    quantization: Quantization
    ways: list[Levers]


def _prepare(job: Job) -> tuple[Rows, Prepared]:
    request = job.request
    model_recipe, lora = request.part("model", ModelRecipe), request.part("lora", LoraRecipe)
    training, quantization = request.part("training", TrainingRecipe), request.part("quantization", Quantization)
    tokenizer = load_tokenizer(job.weights, model_recipe)
    rows = _rows(job, tokenizer, training)
    ways = ways_to_train(job.weights, model_recipe, quantization, lora, training)
    base = load_base(job.weights, quantization, dequantised=ways[0].dequantise_once)
    use_liger(base)
    return rows, Prepared(add_adapter(base, lora, training.seed), tokenizer, quantization, ways)


def _learn(
    job: Job,
    rows: Rows,
    prepared: Prepared,
    deciding: list[TrainerCallback],
    interruption: Interruption,
    budget: Budget,
    attempt: int | None,
    publishing: Checkpoints | None = None,
) -> dict[str, Any]:
    """Take the steps that are left; return the figures of the loop."""
    request = job.request
    training, data = request.part("training", TrainingRecipe), request.part("data", DataRecipe)
    budget.resume(newest_checkpoint(job.checkpoints))
    several = processes.count() > 1
    callbacks = [
        *deciding,
        *([processes.AllSaved()] if several else []),
        *([publishing] if publishing else []),
        *([processes.FirstDecides()] if several else []),
    ]
    task = Task(
        rows.train, training, data, prepared.tokenizer.pad_token_id, job.checkpoints, take_no_step=bool(budget.reached)
    )
    ways = prepared.ways if attempt is None else prepared.ways[attempt : attempt + 1]
    try:
        with interruption.heeded():
            return train(prepared.model, task, ways, job.context, callbacks)
    except ConfigError as error:
        refusal = error.__cause__
        if refusal is None or not is_out_of_memory(refusal) or attempt is None or not prepared.ways[attempt + 1 :]:
            raise
        raise refusal from None  # there is another way, which all processes try together


def _train_and_compare(
    job: Job,
    rows: Rows,
    prepared: Prepared,
    saving: Checkpoints | None,
    interruption: Interruption,
    budget: Budget,
    attempt: int | None,
) -> tuple[dict[str, Any], Reload, Published | None]:
    """Score the base, train, score the best state, write it.

    Return the figures, what must be found again, and what is to be compared with the published adapter.
    """
    model, tokenizer = prepared.model, prepared.tokenizer
    with model.disable_adapter():
        base = assess("base", model, tokenizer, rows.held_out, rows.questions)
    budget.begin_training()
    ends = end_token_ids(model, tokenizer)
    best = BestState(
        model, lambda: score(model, rows.held_out, tokenizer.pad_token_id, ends), lambda: interruption.asked
    )
    best.resume(newest_checkpoint(job.checkpoints))
    deciding = [interruption, budget, *([best] if rows.held_out else [])]
    figures = _learn(job, rows, prepared, deciding, interruption, budget, attempt, saving)
    if saving:
        saving.settle()
    interruption.require_none(figures["steps"], figures["total_steps"])
    found = best.restore(figures["steps"], figures["epochs"]) if rows.held_out else None
    figures |= compared(base, assessed("tuned", found, model, tokenizer, rows.questions))
    figures |= {"scored": best.history, "stopped_by": budget.reached}
    _write(job, model, tokenizer, figures)
    checked = rows.held_out or rows.train
    reload = Reload.of(model, job.weights, job.output, prepared.quantization, prepared.ways[0], checked, tokenizer)
    older = job.published
    if older is None or found is None:
        return figures, reload, None
    way = prepared.ways[0]
    published = Published.of(older, job.weights, prepared.quantization, way, rows.held_out, tokenizer, found)
    return figures, reload, published


def _write(job: Job, model: Any, tokenizer: Any, figures: dict[str, Any]) -> None:  # noqa: ANN401
    """Write the adapter, its figures and its card."""
    request = job.request
    model_recipe, training = request.part("model", ModelRecipe), request.part("training", TrainingRecipe)
    shutil.rmtree(job.output, ignore_errors=True)
    save_adapter(model, tokenizer, model_recipe, job.output)
    kept = {name: value for name, value in figures.items() if name not in NOT_WRITTEN}
    (job.output / METRICS_FILE).write_text("".join(json.dumps(entry) + "\n" for entry in figures["history"]))
    (job.output / EVALUATION_FILE).write_text(json.dumps(kept, indent=1, sort_keys=True))
    write_card(job.output, model_recipe, request.part("data", DataRecipe), training, figures)


def _rows(job: Job, tokenizer: Any, training: TrainingRecipe) -> Rows:  # noqa: ANN401
    def encoded(rows: list[Conversation]) -> list[Encoded]:
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
