"""The Recipe as transformers' Trainer takes it."""

from pathlib import Path
from typing import Any

import torch
from transformers import TrainingArguments

from presets.errors import ConfigError
from presets.recipe import TrainingRecipe


def arguments(
    recipe: TrainingRecipe, folder: Path, batch_size: int, accumulation_steps: int, *, recompute: bool
) -> TrainingArguments:
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
            per_device_train_batch_size=batch_size,
            gradient_accumulation_steps=accumulation_steps,
            learning_rate=recipe.learning_rate,
            lr_scheduler_type=recipe.scheduler,
            warmup_steps=recipe.warmup,
            activation_checkpointing=recompute,
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
