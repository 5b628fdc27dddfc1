"""Every key of the training config that is said to be honoured does what its library says."""

from dataclasses import fields
from typing import Any

import pytest
import torch
from peft import get_peft_model_state_dict
from transformers import AutoConfig, AutoModelForCausalLM, TrainingArguments

from presets.levers import first, ladder
from presets.recipe import LoraRecipe
from presets.training_config import known_keys
from steps import segment_attention
from steps.adapter import add_adapter, load_adapter, save_adapter
from steps.contract import Context
from steps.training import Task, train
from steps.training_arguments import arguments
from tests.contract.test_adapter_keys import BASE, NoTokenizer
from tests.contract.test_levers import SMALL
from tests.contract.test_training import DATA, ROWS, fresh, recipe, silent, weights

# A value of each key that is passed on, which is not the library's default.
PASSED_ON: dict[str, Any] = {
    "per_device_eval_batch_size": 3, "lr_scheduler_kwargs": {"num_cycles": 2}, "weight_decay": 0.1, "adam_beta1": 0.8,
    "adam_beta2": 0.99, "adam_epsilon": 1e-6, "max_grad_norm": 0.3, "optim": "adamw_torch", "optim_args": "x=1",
    "label_smoothing_factor": 0.1, "neftune_noise_alpha": 5.0, "logging_steps": 7, "logging_first_step": True,
    "save_strategy": "steps", "save_steps": 4, "save_total_limit": 5, "data_seed": 3, "full_determinism": False,
    "dataloader_num_workers": 1, "ddp_find_unused_parameters": False, "tf32": None,
}  # fmt: skip
# Keys with a field of the Recipe's own -> the field, a value, and what transformers is told.
FIELDS: dict[str, tuple[str, Any, str, Any]] = {
    "num_train_epochs": ("epochs", 2.5, "num_train_epochs", 2.5),
    "max_steps": ("max_steps", 9, "max_steps", 9),
    "per_device_train_batch_size": ("batch_size", 3, "per_device_train_batch_size", 3),
    "gradient_accumulation_steps": ("gradient_accumulation_steps", 5, "gradient_accumulation_steps", 5),
    "learning_rate": ("learning_rate", 3e-4, "learning_rate", 3e-4),
    "lr_scheduler_type": ("scheduler", "cosine", "lr_scheduler_type", "cosine"),
    "warmup_steps": ("warmup", 12, "warmup_steps", 12),
    "warmup_ratio": ("warmup", 0.2, "warmup_steps", 0.2),
    "gradient_checkpointing": ("gradient_checkpointing", True, "activation_checkpointing", True),
    "activation_checkpointing": ("gradient_checkpointing", True, "activation_checkpointing", True),
    "seed": ("seed", 5, "seed", 5),
}
OURS = {"max_length", "max_seq_length", "packing", "assistant_only_loss"}  # packing and labels: tests of their own


def test_every_honoured_key_is_looked_at():
    honoured = set(known_keys()["TrainingArguments"]["honoured"])
    assert honoured == set(PASSED_ON) | set(FIELDS) | OURS
    assert honoured - OURS - {"warmup_ratio"} <= {f.name for f in fields(TrainingArguments)}
    assert set(known_keys()["LoraConfig"]["honoured"]) == set(LORA) | {
        "r", "lora_alpha", "lora_dropout", "target_modules",
    }  # fmt: skip


@pytest.mark.parametrize("key", PASSED_ON)
def test_a_key_of_the_training_loop_reaches_transformers(tmp_path, key):
    asked = recipe(extra={key: PASSED_ON[key]})
    told = getattr(arguments(asked, tmp_path, first(asked)), key)
    assert getattr(told, "value", told) == PASSED_ON[key]


@pytest.mark.parametrize("key", FIELDS)
def test_a_field_of_the_recipe_reaches_transformers(tmp_path, key):
    field, value, name, expected = FIELDS[key]
    asked = recipe(**{field: value})
    told = getattr(arguments(asked, tmp_path, first(asked)), name)
    assert getattr(told, "value", told) == expected


def trained(folder, lora=None, **extra):
    """Return what a short training makes of the adapter, and its figures."""
    model = fresh(lora or LoraRecipe(4, 8, 0.0, "all-linear", {}))
    asked = recipe(epochs=1.0, extra=extra)
    figures = train(model, Task(ROWS, asked, DATA, 0, folder), ladder(first(asked)), Context(folder, silent))
    return model, figures


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    model, figures = trained(tmp_path_factory.mktemp("plain"))
    return weights(model), figures


@pytest.mark.parametrize(
    ("key", "value"),
    [("neftune_noise_alpha", 5.0), ("label_smoothing_factor", 0.2), ("weight_decay", 0.5), ("adam_beta1", 0.5),
     ("max_grad_norm", 0.01), ("optim", "adafactor"), ("data_seed", 9)],
)  # fmt: skip
def test_a_key_changes_what_is_learned(plain, tmp_path, key, value):
    model, _ = trained(tmp_path, **{key: value})
    assert not torch.equal(weights(model), plain[0])


def test_workers_that_load_rows_change_nothing_that_is_learned(plain, tmp_path):
    model, _ = trained(tmp_path, dataloader_num_workers=1)
    assert torch.equal(weights(model), plain[0])


def test_the_loss_is_logged_as_often_as_asked(plain, tmp_path):
    _, figures = trained(tmp_path, logging_steps=2)
    assert [e["step"] for e in figures["history"]] == [e["step"] for e in plain[1]["history"]][1::2]


# A value of each key of the adapter.
LORA: dict[str, Any] = {
    "exclude_modules": ["down_proj"], "bias": "lora_only", "use_rslora": True, "use_dora": True,
    "init_lora_weights": "gaussian", "layers_to_transform": [1], "layers_pattern": "layers",
    "rank_pattern": {"q_proj": 2}, "alpha_pattern": {"q_proj": 32}, "fan_in_fan_out": False, "lora_bias": False,
    "modules_to_save": ["lm_head"],
}  # fmt: skip
NEEDS = {"layers_pattern": {"layers_to_transform": [1]}}  # another key that this one goes with


@pytest.mark.parametrize("key", LORA)
def test_an_adapter_of_every_kind_learns_and_is_the_same_when_loaded_again(tmp_path, key):
    targets = ("q_proj", "down_proj")
    model, figures = trained(tmp_path / "run", LoraRecipe(4, 8, 0.0, targets, {**NEEDS.get(key, {}), key: LORA[key]}))
    told = getattr(model.peft_config["default"], key)
    assert (sorted(told) if isinstance(told, set) else told) == LORA[key]
    losses = [e["loss"] for e in figures["history"]]
    assert losses[-1] < losses[0]
    save_adapter(model, NoTokenizer(), BASE, tmp_path / "adapter")
    torch.manual_seed(0)
    segment_attention.register()
    config = AutoConfig.for_model("llama", **SMALL, num_key_value_heads=2)
    base = AutoModelForCausalLM.from_config(config, attn_implementation=segment_attention.NAME)
    again = load_adapter(base, tmp_path / "adapter")
    expected, found = (get_peft_model_state_dict(m, save_embedding_layers=False) for m in (model, again))
    assert set(found) == set(expected)
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    ids = torch.tensor([ROWS[0].ids])
    with torch.no_grad():  # the trained model still computes in bfloat16
        assert torch.allclose(again.eval()(ids).logits, model.eval()(ids).logits, atol=2e-2)


def test_layers_and_modules_that_are_left_out_have_no_adapter(tmp_path):
    def adapted(**extra):
        model = add_adapter_to_small(LoraRecipe(4, 8, 0.0, ("q_proj", "down_proj"), extra))
        return {name for name, p in model.named_parameters() if p.requires_grad}

    assert not any("down_proj" in name for name in adapted(exclude_modules=["down_proj"]))
    assert all(".layers.1." in name for name in adapted(layers_to_transform=[1]))


def add_adapter_to_small(lora):
    config = AutoConfig.for_model("llama", **SMALL, num_key_value_heads=2)
    return add_adapter(AutoModelForCausalLM.from_config(config).requires_grad_(False), lora, seed=1)
