"""The training loop: transformers' Trainer over packs, with the loss taken where it is supervised."""

import gc
import math
import random
import time
from collections.abc import Iterable, Sequence, Sized
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch.utils.data import Dataset, SequentialSampler
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainerState

from presets.errors import ConfigError
from presets.levers import Levers
from presets.recipe import DataRecipe, TrainingRecipe
from steps import logs, processes
from steps.adapter import put_back, snapshot, trainable
from steps.batches import Collator, Form, Packs
from steps.chat import Encoded
from steps.checkpoint_files import newest_checkpoint
from steps.checkpoints import load_adapter_weights, state_of
from steps.contract import Context
from steps.families import sharing_packs
from steps.fused_lora import fuse
from steps.loss import token_losses
from steps.packing import packs_in_order
from steps.prefix_tree import lay_out
from steps.ragged_attention import usable
from steps.reporter import Reporter, peak_memory_bytes
from steps.segment_attention import in_use
from steps.training_arguments import arguments

LEAST_STEPS = 200  # of a run, below which rows that share beginnings make no step larger


class SupervisedTrainer(Trainer):  # type: ignore[misc]  # transformers is not typed
    """Trainer whose loss is the mean over supervised tokens of the whole optimiser step."""

    def compute_loss(
        self,
        model: Any,  # noqa: ANN401, ARG002  (wrapped, where there are several processes)
        inputs: dict[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:  # noqa: ANN401
        """Return the summed token losses over the tokens of the step, those of all processes.

        Gradients and logged losses of several processes are averaged: each counts for as many as there are.
        """
        losses, _ = token_losses(self.model, inputs, self.args.label_smoothing_factor)
        loss = losses.sum() / (num_items_in_batch if num_items_in_batch is not None else max(1, len(losses)))
        loss = loss * processes.count()
        return (loss, {"losses": losses}) if return_outputs else loss

    def training_step(self, *arguments: Any, **options: Any) -> torch.Tensor:  # noqa: ANN401
        """Average the gradients of all processes when the step is complete."""
        loss = super().training_step(*arguments, **options)
        if processes.count() > 1 and self.accelerator.sync_gradients:
            processes.average_gradients(trainable(cast("torch.nn.Module", self.model)))
        return cast("torch.Tensor", loss)

    def _get_train_sampler(self, train_dataset: Dataset[Any] | None = None) -> SequentialSampler:
        """Packs come in the order that they are trained in, shuffled already where that is wanted."""
        return SequentialSampler(cast("Sized", train_dataset if train_dataset is not None else self.train_dataset))


@dataclass(frozen=True, slots=True)
class Task:
    """What is trained on, and how."""

    rows: Sequence[Encoded]
    recipe: TrainingRecipe
    data: DataRecipe
    pad_id: int
    folder: Path  # of the checkpoints
    take_no_step: bool = False  # where there is a checkpoint: its state is the result


def train(
    model: Any,  # noqa: ANN401
    task: Task,
    ways: Iterable[Levers],
    context: Context,
    callbacks: Sequence[TrainerCallback] = (),
) -> dict[str, Any]:
    """Train the adapter of ``model`` in place; return the figures of the run.

    A run that finds complete checkpoints goes on from the newest. What does not fit into memory is tried in the next
    of ``ways`` to cut a step.

    Raises:
        ConfigError: no way fits, or rows are longer than the model's attention reaches.
        DataError: the loss is no longer a number.
    """
    _check_window(model, task.rows)
    packs = _packs(task.rows, task.recipe, task.data)
    fuse(model)
    fresh = snapshot(model)
    refusal: Exception | None = None
    for way in ways:
        if refusal is not None:
            _begin_anew(model, fresh)
            logs.warning("out_of_memory", trying=str(way))
        try:
            return _run(model, task, packs, way, context, callbacks)
        except (torch.OutOfMemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            refusal = error.with_traceback(None)  # its frames would keep the tensors
    raise ConfigError(
        "InsufficientMemory",
        f"One pack of {task.recipe.max_length_tokens} tokens does not fit into memory, activations recomputed.",
        fix="Lower TrainingArguments.max_length, use method: qlora, or name a GPU with more memory.",
    ) from refusal


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed: on a GPU, or in torch's allocator of the CPU."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def _begin_anew(model: Any, fresh: dict[str, torch.Tensor]) -> None:  # noqa: ANN401
    """Put the adapter back to where it began, and free what the failed try holds."""
    put_back(model, fresh)
    model.zero_grad(set_to_none=True)
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _run(
    model: Any,  # noqa: ANN401
    task: Task,
    packs: list[list[int]],
    way: Levers,
    context: Context,
    callbacks: Sequence[TrainerCallback],
) -> dict[str, Any]:
    recipe, together = task.recipe, processes.count()
    size = _size(task.rows, packs, share=recipe.packing)
    micro_steps = math.ceil(len(packs) / way.packs / together)
    per_step = size["tokens"] / math.ceil(micro_steps / way.accumulation_steps)
    spread = packs + [[]] * (-len(packs) % (way.packs * together) if together > 1 else 0)
    reporter = Reporter(context, per_step, way) if processes.is_first() else None
    trainer = SupervisedTrainer(
        model=model,
        args=arguments(recipe, task.folder, way),
        train_dataset=Packs(task.rows, spread),
        data_collator=Collator(task.pad_id, _form(model), share=recipe.packing),
        callbacks=[*([reporter] if reporter else []), *callbacks],
    )
    trainer.model_accepts_loss_kwargs = True  # the loss is a sum over the step's tokens: do not divide it again
    trainer.remove_callback(PrinterCallback)
    logs.event("packed", rows=len(task.rows), processes=together, **size)
    checkpoint = newest_checkpoint(task.folder)
    before = state_of(checkpoint) if checkpoint else TrainerState()
    began = time.monotonic()
    if checkpoint and (task.take_no_step or before.global_step >= before.max_steps):  # the Trainer would take one more
        load_adapter_weights(model, checkpoint)
        trainer.state = before
    else:
        trainer.train(resume_from_checkpoint=checkpoint)
    seconds = time.monotonic() - began
    trained = trainer.state.global_step - before.global_step
    return {
        **_told(trainer.state),
        **size,
        "train_seconds": round(seconds, 1),
        "tokens_per_second": round(per_step * trained / max(seconds, 1e-9), 1),
        "peak_memory_bytes": peak_memory_bytes(),
        "levers": {**asdict(way), "processes": together},
    }


def _form(model: Any) -> Form:  # noqa: ANN401
    """Return how the model's attention is told whom each token looks at."""
    if not in_use(model):
        return "dense"
    return "ragged" if usable(model.device) else "segments"


def _size(rows: Sequence[Encoded], packs: Sequence[Sequence[int]], *, share: bool) -> dict[str, int]:
    """Return how much there is to train on, and how much of it is computed."""
    computed = sum(len(lay_out([rows[i] for i in pack], share=share).ids) for pack in packs)
    return {"tokens": sum(len(row.ids) for row in rows), "computed_tokens": computed, "packs": len(packs)}


def _told(state: TrainerState) -> dict[str, Any]:
    """Return what the Trainer knows at the end; an interrupted and resumed run knows the same."""
    history = [entry for entry in state.log_history if "loss" in entry]
    return {
        "steps": state.global_step,
        "total_steps": state.max_steps,
        "epochs": round(state.epoch or 0.0, 3),
        "train_loss": sum(entry["loss"] for entry in history) / max(1, len(history)),
        "history": [{"step": e["step"], "loss": e["loss"], "learning_rate": e["learning_rate"]} for e in history],
    }


def _check_window(model: Any, rows: Sequence[Encoded]) -> None:  # noqa: ANN401
    window = getattr(model.config, "sliding_window", None)
    longest = max(len(row.ids) for row in rows)
    if window and longest > window:
        raise ConfigError(
            "RowsLongerThanWindow",
            f"The longest row has {longest} tokens, and the model's attention reaches {window}.",
            fix=f"Set TrainingArguments.max_length to {window} at most.",
        )


def _growth(rows: Sequence[Encoded], recipe: TrainingRecipe) -> float:
    """Return how many times as many tokens a step may hold where rows share beginnings, steps not getting too few."""
    if recipe.max_steps > 0:
        return math.inf  # the steps are given
    tokens = recipe.epochs * sum(len(row.ids) for row in rows)
    per_step = recipe.max_length_tokens * recipe.batch_size * recipe.gradient_accumulation_steps
    return max(1.0, tokens / per_step / LEAST_STEPS)


def _packs(rows: Sequence[Encoded], recipe: TrainingRecipe, data: DataRecipe) -> list[list[int]]:
    """Return which rows lie in which pack, in the order that they are trained in."""
    if not data.shuffle:
        lengths = [len(row.ids) for row in rows]
        return packs_in_order(lengths, recipe.max_length_tokens) if recipe.packing else [[i] for i in range(len(rows))]
    seed = recipe.extra.get("data_seed", data.seed)
    if recipe.packing:
        return sharing_packs(rows, recipe.max_length_tokens, seed, _growth(rows, recipe))
    order = list(range(len(rows)))
    random.Random(seed).shuffle(order)  # noqa: S311  (not for secrets)
    return [[i] for i in order]
