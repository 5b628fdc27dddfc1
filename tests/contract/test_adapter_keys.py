"""The saved adapter is what vLLM's LoRA loader takes: its keys, its modules, its config.

The rules are those of vllm/lora/lora_model.py and peft_helper.py (August 2026): a key is
``base_model.model.<module>.lora_A.weight`` or ``…lora_B.weight``, its module one that the model has; the config names
``r``, ``lora_alpha`` and ``target_modules``, saves no further modules, and is not DoRA.
"""

import json
import re

import pytest
from safetensors import safe_open
from transformers import AutoConfig, AutoModelForCausalLM

from presets.catalogue import catalogue
from presets.recipe import LoraRecipe, ModelRecipe
from steps.adapter import add_adapter, load_adapter, save_adapter
from tests.contract.test_levers import ARCHITECTURES, SMALL

KEY = re.compile(r"base_model\.model\.(?P<module>.+)\.lora_(?P<side>[AB])\.weight")
KINDS = {  # architecture of the catalogue -> transformers' model type
    "LlamaForCausalLM": "llama", "MistralForCausalLM": "mistral", "Qwen2ForCausalLM": "qwen2",
    "Phi3ForCausalLM": "phi3", "PhiForCausalLM": "phi", "FalconForCausalLM": "falcon",
}  # fmt: skip
BASE = ModelRecipe("x", "org/base", "0" * 40, "mit", False, 512, None, "float32", None, None, None)


class NoTokenizer:
    """Saves nothing: only the adapter's files are looked at."""

    def save_pretrained(self, folder):
        """Write nothing."""


def test_every_architecture_of_the_catalogue_is_looked_at():
    assert {model.architecture for model in catalogue().values()} == set(KINDS)


def built(kind):
    config = AutoConfig.for_model(kind, **SMALL, **ARCHITECTURES.get(kind, {}))
    return AutoModelForCausalLM.from_config(config).requires_grad_(False)


@pytest.mark.parametrize("preset", sorted({m.architecture: n for n, m in catalogue().items()}.values()))
def test_the_keys_are_those_that_vllm_reads(preset, tmp_path):
    model = catalogue()[preset]
    kind = KINDS[model.architecture]
    adapted = add_adapter(built(kind), LoraRecipe(4, 8, 0.0, model.lora_targets, {}), seed=1)
    save_adapter(adapted, NoTokenizer(), BASE, tmp_path)
    with safe_open(tmp_path / "adapter_model.safetensors", framework="pt") as file:
        found = [KEY.fullmatch(key) for key in file.keys()]  # noqa: SIM118  (safe_open is no mapping)
    assert all(found)
    sides = sorted((match["module"], match["side"]) for match in found if match)
    modules = {module for module, _ in sides}
    assert sides == sorted((module, side) for module in modules for side in "AB")
    base = dict(built(kind).named_modules())
    assert modules <= set(base)
    assert {module.rsplit(".", 1)[-1] for module in modules} == set(model.lora_targets)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["bias"]) == (4, 8, "none")
    assert config["target_modules"] == sorted(model.lora_targets)  # peft's own order is that of a set: no two alike
    assert not config["modules_to_save"]
    assert not config["use_dora"]
    assert config["base_model_name_or_path"] == "org/base"
    assert load_adapter(built(kind), tmp_path).active_adapter == "default"
