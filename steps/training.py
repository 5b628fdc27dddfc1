"""The training loop: transformers' Trainer over packs, with the loss taken where it is supervised."""

import math
import random
import time
from collections.abc import Sequence, Sized
from pathlib import Path
from typing import Any, cast

import torch
from torch.utils.data import Dataset, SequentialSampler
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from presets.errors import ConfigError, DataError
from presets.recipe import DataRecipe, TrainingRecipe
from steps import logs
from steps.batches import Collator, Packs
from steps.chat import Encoded
from steps.contract import ReportsProgress
from steps.loss import token_losses
from steps.packing import packs_in_order, shuffled_packs

REPORT_SECONDS = 2.0
CHECKPOINTS_PER_RUN = 8


class SupervisedTrainer(Trainer):  # type: ignore[misc]  # transformers is not typed
    """Trainer whose loss is the mean over supervised tokens of the whole optimiser step."""

    def compute_loss(
        self,
        model: Any,  # noqa: ANN401
        inputs: dict[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:  # noqa: ANN401
        """Return the summed token losses over the tokens of the step."""
        losses, _ = token_losses(model, inputs, self.args.label_smoothing_factor)
        loss = losses.sum() / (num_items_in_batch if num_items_in_batch is not None else max(1, len(losses)))
        return (loss, {"losses": losses}) if return_outputs else loss

    def _get_train_sampler(self, train_dataset: Dataset[Any] | None = None) -> SequentialSampler:
        """Packs come in the order that they are trained in, shuffled already where that is wanted."""
        return SequentialSampler(cast("Sized", train_dataset if train_dataset is not None else self.train_dataset))


class Reporter(TrainerCallback):  # type: ignore[misc]
    """Tells how far the training is, every few seconds, and stops it when the loss is no longer a number."""

    def __init__(self, progress: ReportsProgress, tokens_per_step: float) -> None:
        self._progress = progress
        self._tokens_per_step = tokens_per_step
        self._began_at = self._reported_at = time.monotonic()
        self._first_step = 0
        self._loss: float | None = None

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:  # noqa: ANN401, ARG002
        """Start the clock; a resumed run counts its own steps."""
        self._began_at = self._reported_at = time.monotonic()
        self._first_step = state.global_step

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **values: Any) -> None:  # noqa: ANN401, ARG002
        """Keep the loss, and refuse to go on from a loss that is not a number."""
        loss = (values.get("logs") or {}).get("loss")
        if loss is None:
            return
        self._loss = float(loss)
        if not math.isfinite(self._loss):
            raise DataError(
                "LossNotFinite",
                f"The loss is {self._loss} at step {state.global_step}.",
                fix="Lower TrainingArguments.learning_rate, or raise warmup_steps.",
            )

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:  # noqa: ANN401, ARG002
        """Report progress, speed and the time that is left."""
        self._progress(state.global_step, state.max_steps)
        now = time.monotonic()
        if now - self._reported_at < REPORT_SECONDS and state.global_step < state.max_steps:
            return
        self._reported_at = now
        done = max(1, state.global_step - self._first_step)
        seconds_per_step = (now - self._began_at) / done
        logs.event(
            "training",
            trained_steps=state.global_step,
            total_steps=state.max_steps,
            loss=self._loss,
            tokens_per_second=round(self._tokens_per_step / seconds_per_step, 1),
            eta_seconds=round(seconds_per_step * (state.max_steps - state.global_step)),
        )


def train(
    model: Any,  # noqa: ANN401
    rows: Sequence[Encoded],
    recipe: TrainingRecipe,
    data: DataRecipe,
    pad_id: int,
    folder: Path,
    progress: ReportsProgress,
    callbacks: Sequence[TrainerCallback] = (),
) -> dict[str, Any]:
    """Train the adapter of ``model`` in place; return the figures of the run.

    Checkpoints lie in ``folder``; a run that finds complete ones there goes on from the newest.
    """
    packs = _packs(rows, recipe, data)
    tokens = sum(len(row.ids) for row in rows)
    micro_steps = math.ceil(len(packs) / recipe.batch_size)
    per_epoch = math.ceil(micro_steps / recipe.gradient_accumulation_steps)
    total = recipe.max_steps if recipe.max_steps > 0 else math.ceil(per_epoch * recipe.epochs)
    per_step = tokens / per_epoch
    settings = arguments(recipe, folder, total)
    reporter = Reporter(progress, per_step)
    trainer = SupervisedTrainer(
        model=model,
        args=settings,
        train_dataset=Packs(rows, packs),
        data_collator=Collator(pad_id),
        callbacks=[reporter, *callbacks],
    )
    trainer.model_accepts_loss_kwargs = True  # the loss is a sum over the step's tokens: do not divide it again
    trainer.remove_callback(PrinterCallback)
    logs.event("packed", rows=len(rows), tokens=tokens, packs=len(packs), total_steps=total)
    began = time.monotonic()
    outcome = trainer.train(resume_from_checkpoint=newest_checkpoint(folder))
    seconds = time.monotonic() - began
    history = [entry for entry in trainer.state.log_history if "loss" in entry]
    return {
        "steps": trainer.state.global_step,
        "epochs": round(trainer.state.epoch or 0.0, 3),
        "train_loss": outcome.training_loss,
        "train_seconds": round(seconds, 1),
        "tokens_per_second": round(per_step * trainer.state.global_step / max(seconds, 1e-9), 1),
        "packs": len(packs),
        "history": [{"step": e["step"], "loss": e["loss"], "learning_rate": e["learning_rate"]} for e in history],
    }


def _packs(rows: Sequence[Encoded], recipe: TrainingRecipe, data: DataRecipe) -> list[list[int]]:
    lengths = [len(row.ids) for row in rows]
    capacity = recipe.max_length_tokens
    if not data.shuffle:
        return packs_in_order(lengths, capacity) if recipe.packing else [[i] for i in range(len(rows))]
    seed = recipe.extra.get("data_seed", data.seed)
    if recipe.packing:
        return shuffled_packs(lengths, capacity, seed)
    order = list(range(len(rows)))
    random.Random(seed).shuffle(order)  # noqa: S311  (not for secrets)
    return [[i] for i in order]


def arguments(recipe: TrainingRecipe, folder: Path, total_steps: int) -> TrainingArguments:
    """Return the Recipe as the Trainer takes it.

    Raises:
        ConfigError: transformers refuses a value.
    """
    on_gpu = torch.cuda.is_available()
    bf16 = on_gpu and torch.cuda.get_device_capability() >= (8, 0)
    defaults: dict[str, Any] = {
        "logging_steps": 1,
        "save_strategy": "steps",
        "save_steps": max(1, math.ceil(total_steps / CHECKPOINTS_PER_RUN)),
        "save_total_limit": 2,
        "weight_decay": 0.0,
        "logging_nan_inf_filter": False,  # else transformers logs a loss that is not a number as 0
    }
    try:
        return TrainingArguments(
            output_dir=str(folder),
            num_train_epochs=recipe.epochs,
            max_steps=recipe.max_steps,
            per_device_train_batch_size=recipe.batch_size,
            gradient_accumulation_steps=recipe.gradient_accumulation_steps,
            learning_rate=recipe.learning_rate,
            lr_scheduler_type=recipe.scheduler,
            warmup_steps=recipe.warmup,
            activation_checkpointing=recipe.gradient_checkpointing,
            seed=recipe.seed,
            bf16=bf16 or not on_gpu,
            fp16=on_gpu and not bf16,
            use_cpu=not on_gpu,
            report_to="none",
            disable_tqdm=True,
            remove_unused_columns=False,
            dataloader_pin_memory=on_gpu,
            **{**defaults, **recipe.extra},
        )
    except (ValueError, TypeError, ImportError) as error:
        raise ConfigError(
            "TrainingArgumentsRefused",
            f"transformers refuses the TrainingArguments: {error}",
            fix="Correct TrainingArguments in the training config.",
        ) from error


def newest_checkpoint(folder: Path) -> str | None:
    """Return the newest complete checkpoint below ``folder``: the trainer's state is what is written last."""
    complete = [
        p.parent for p in folder.glob("checkpoint-*/trainer_state.json") if (p.parent / "optimizer.pt").is_file()
    ]
    numbered = sorted((int(p.name.removeprefix("checkpoint-")), str(p)) for p in complete)
    return numbered[-1][1] if numbered else None
