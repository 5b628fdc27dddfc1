"""The Recipe as transformers' Trainer takes it."""

from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from transformers import TrainingArguments

from presets.errors import ConfigError
from presets.levers import Levers
from presets.recipe import TrainingRecipe
from steps import processes

WAIT_SECONDS = 6 * 3600  # of other processes, while the first one scores an epoch


def arguments(recipe: TrainingRecipe, folder: Path, way: Levers) -> TrainingArguments:
    """Return the Recipe as the Trainer takes it; ``save_strategy`` is "no" unless the training config says when.

    Raises:
        ConfigError: transformers refuses a value.
    """
    on_gpu = torch.cuda.is_available()
    bf16 = on_gpu and torch.cuda.get_device_capability() >= (8, 0)
    defaults: dict[str, Any] = {
        "logging_steps": 1,
        "save_strategy": "no",  # steps.checkpoints decides by the clock
        "save_total_limit": 2,
        "weight_decay": 0.0,
        "logging_nan_inf_filter": False,  # else transformers logs a loss that is not a number as 0
    }
    try:
        return TrainingArguments(
            output_dir=str(folder),
            num_train_epochs=recipe.epochs,
            max_steps=recipe.max_steps,
            per_device_train_batch_size=way.packs,
            gradient_accumulation_steps=way.accumulation_steps,
            learning_rate=recipe.learning_rate,
            lr_scheduler_type=recipe.scheduler,
            warmup_steps=recipe.warmup,
            seed=recipe.seed,
            bf16=bf16 or not on_gpu,
            fp16=on_gpu and not bf16,
            use_cpu=not on_gpu,
            report_to="none",
            disable_tqdm=True,
            remove_unused_columns=False,
            dataloader_pin_memory=on_gpu,
            **_together(on_gpu=on_gpu),
            **_recomputing(way.recompute_every),
            **{**defaults, **recipe.extra},
        )
    except (ValueError, TypeError, ImportError) as error:
        raise ConfigError(
            "TrainingArgumentsRefused",
            f"transformers refuses the TrainingArguments: {error}",
            fix="Correct TrainingArguments in the training config.",
        ) from error


def _together(*, on_gpu: bool) -> dict[str, Any]:
    """Return the arguments of a process that does not train alone."""
    if processes.count() == 1:
        return {}
    return {"ddp_backend": "nccl" if on_gpu else "gloo", "ddp_timeout": WAIT_SECONDS}


def _recomputing(every: int) -> dict[str, Any]:
    """Return the arguments for layers computed again, by the name that the installed transformers gives them."""
    named = {field.name for field in fields(TrainingArguments)}
    name = "activation_checkpointing" if "activation_checkpointing" in named else "gradient_checkpointing"
    return {name: True, f"{name}_kwargs": {"every_n_layers": every}} if every else {}
