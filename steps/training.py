"""The training loop: transformers' Trainer over packs, with the loss taken where it is supervised."""

import gc
import math
import random
import time
from collections.abc import Iterator, Sequence, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch.utils.data import Dataset, SequentialSampler
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainerState

from presets.errors import ConfigError
from presets.recipe import DataRecipe, TrainingRecipe
from steps import logs
from steps.adapter import put_back, snapshot
from steps.batches import Collator, Packs
from steps.chat import Encoded
from steps.checkpoints import load_adapter_weights, newest_checkpoint, state_of
from steps.contract import ReportsProgress
from steps.families import sharing_packs
from steps.fused_lora import fuse
from steps.loss import token_losses
from steps.packing import packs_in_order
from steps.prefix_tree import lay_out
from steps.reporter import Reporter, peak_memory_bytes
from steps.segment_attention import in_use
from steps.training_arguments import arguments

LEAST_STEPS = 200  # of a run, below which rows that share beginnings make no step larger


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


@dataclass(frozen=True, slots=True)
class Micro:
    """How one optimiser step is cut into what memory holds at a time; the step itself stays the same."""

    packs: int  # of one micro-batch
    accumulation_steps: int
    recompute: bool  # activations are computed again in the backward pass rather than kept


def smaller(micro: Micro) -> Iterator[Micro]:
    """Yield ``micro`` and ever less hungry ways to take the same step."""
    yield micro
    while micro.packs > 1:
        fewer = next(n for n in range(micro.packs // 2, 0, -1) if micro.packs % n == 0)
        micro = Micro(fewer, micro.accumulation_steps * micro.packs // fewer, micro.recompute)
        yield micro
    if not micro.recompute:
        yield Micro(1, micro.accumulation_steps, recompute=True)


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

    Checkpoints lie in ``folder``; a run that finds complete ones there goes on from the newest. What does not fit
    into memory is tried again in smaller pieces.

    Raises:
        ConfigError: not even one pack fits, or rows are longer than the model's attention reaches.
        DataError: the loss is no longer a number.
    """
    _check_window(model, rows)
    packs = _packs(rows, recipe, data)
    fuse(model)
    fresh = snapshot(model)
    first = Micro(recipe.batch_size, recipe.gradient_accumulation_steps, recipe.gradient_checkpointing)
    refusal: Exception | None = None
    for micro in smaller(first):
        if refusal is not None:
            _begin_anew(model, fresh)
            logs.warning("out_of_memory", packs=micro.packs, accumulation=micro.accumulation_steps,
                         recompute=micro.recompute)  # fmt: skip
        try:
            return _run(model, rows, packs, recipe, micro, pad_id, folder, progress, callbacks)
        except (torch.OutOfMemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            refusal = error.with_traceback(None)  # its frames would keep the tensors
    raise ConfigError(
        "InsufficientMemory",
        f"One pack of {recipe.max_length_tokens} tokens does not fit into memory, activations recomputed.",
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
    rows: Sequence[Encoded],
    packs: list[list[int]],
    recipe: TrainingRecipe,
    micro: Micro,
    pad_id: int,
    folder: Path,
    progress: ReportsProgress,
    callbacks: Sequence[TrainerCallback],
) -> dict[str, Any]:
    size = _size(rows, packs, share=recipe.packing)
    micro_steps = math.ceil(len(packs) / micro.packs)
    per_step = size["tokens"] / math.ceil(micro_steps / micro.accumulation_steps)
    trainer = SupervisedTrainer(
        model=model,
        args=arguments(recipe, folder, micro.packs, micro.accumulation_steps, recompute=micro.recompute),
        train_dataset=Packs(rows, packs),
        data_collator=Collator(pad_id, dense=not in_use(model), share=recipe.packing),
        callbacks=[Reporter(progress, per_step), *callbacks],
    )
    trainer.model_accepts_loss_kwargs = True  # the loss is a sum over the step's tokens: do not divide it again
    trainer.remove_callback(PrinterCallback)
    logs.event("packed", rows=len(rows), **size)
    checkpoint = newest_checkpoint(folder)
    before = state_of(checkpoint) if checkpoint else TrainerState()
    began = time.monotonic()
    if checkpoint and before.global_step >= before.max_steps:  # the Trainer would take one step more
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
        "micro_batch": {"packs": micro.packs, "accumulation": micro.accumulation_steps, "recompute": micro.recompute},
    }


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
