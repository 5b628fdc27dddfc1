"""The LoRA adapter on a frozen base: made, saved, loaded again."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import PreTrainedModel

from presets.errors import ConfigError
from presets.recipe import LoraRecipe, ModelRecipe


def add_adapter(model: PreTrainedModel, lora: LoraRecipe, seed: int) -> PeftModel:
    """Return the base with a fresh adapter, whose weights train in float32; the same seed gives the same weights.

    Raises:
        ConfigError: peft refuses the values, or the model has none of the target modules.
    """
    torch.manual_seed(seed)
    targets = lora.target_modules if isinstance(lora.target_modules, str) else list(lora.target_modules)
    try:
        config = LoraConfig(
            r=lora.r,
            lora_alpha=lora.alpha,
            lora_dropout=lora.dropout,
            target_modules=targets,
            task_type="CAUSAL_LM",
            **dict(lora.extra),
        )
        peft_model = get_peft_model(model, config)
    except (ValueError, TypeError) as error:
        raise ConfigError(
            "LoraConfigRefused",
            f"peft refuses the LoraConfig: {error}",
            fix="Correct LoraConfig in the training config.",
        ) from error
    for parameter in trainable(peft_model):
        parameter.data = parameter.data.float()
    return peft_model


def load_adapter(model: PreTrainedModel, folder: Path) -> PeftModel:
    """Return the base with the saved adapter of ``folder``."""
    return PeftModel.from_pretrained(model, folder, is_trainable=False)


def trainable(model: torch.nn.Module) -> list[torch.nn.Parameter]:
    """Return the parameters that training changes."""
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def snapshot(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Return copies, in the machine's memory, of what training changes."""
    return {name: p.detach().to("cpu", copy=True) for name, p in model.named_parameters() if p.requires_grad}


def put_back(model: torch.nn.Module, weights: Mapping[str, torch.Tensor]) -> None:
    """Give the parameters the values of a snapshot."""
    with torch.no_grad():
        for name, value in weights.items():
            model.get_parameter(name).copy_(value)


def save_adapter(model: PeftModel, tokenizer: Any, base: ModelRecipe, folder: Path) -> None:  # noqa: ANN401
    """Write ``adapter_config.json``, ``adapter_model.safetensors`` and the tokenizer with its chat template."""
    model.save_pretrained(str(folder), safe_serialization=True)
    tokenizer.save_pretrained(folder)
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text())
    config["base_model_name_or_path"] = base.hugging_face_id  # peft wrote a path of this machine
    config["revision"] = base.revision if len(base.revision) == 40 else None
    for name in ("target_modules", "exclude_modules"):  # sets to peft: the same adapter has the same bytes
        if isinstance(config.get(name), list):
            config[name] = sorted(config[name])
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    (folder / "README.md").unlink(missing_ok=True)  # peft's template card; ours is written with the figures
