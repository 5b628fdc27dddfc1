"""The frozen base model, held as the Recipe says: 4-bit, 8-bit or 16-bit, on the GPU or the CPU.

On a CPU the 4-bit weights are dequantised once after quantising: the numbers are those of QLoRA, no
``Linear4bit`` is left, and with it goes the trap described at :func:`disarm`.
"""

from pathlib import Path
from typing import Any

import torch
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    PreTrainedModel,
)

from presets.errors import ConfigError
from presets.recipe import ModelRecipe, QuantizationRecipe
from steps import segment_attention
from steps.machine import bf16_on_cpu

DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}


def device() -> torch.device:
    """Return the GPU of this process where there is one, else the CPU."""
    return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")


def compute_dtype(name: str) -> torch.dtype:
    """Return the type to compute in: what was asked for, or the nearest that the hardware multiplies."""
    wanted = DTYPES.get(name, torch.bfloat16)
    if torch.cuda.is_available():
        lacks_bf16 = wanted is torch.bfloat16 and torch.cuda.get_device_capability() < (8, 0)
        return torch.float16 if lacks_bf16 else wanted
    if wanted is torch.float32:
        return wanted
    return torch.bfloat16 if bf16_on_cpu() else torch.float32


def load_tokenizer(weights: Path, model: ModelRecipe) -> Any:  # noqa: ANN401  (transformers has no useful base type)
    """Return the tokenizer with the Recipe's chat template, if it names one; never pads with a new token."""
    tokenizer = AutoTokenizer.from_pretrained(weights, local_files_only=True)
    if model.chat_template:
        path = Path(model.chat_template)
        is_path = "\n" not in model.chat_template and "{" not in model.chat_template and path.is_file()
        tokenizer.chat_template = path.read_text() if is_path else model.chat_template
    if not tokenizer.chat_template:
        raise ConfigError(
            "NoChatTemplate",
            f"The tokenizer of {model.preset} has no chat template.",
            fix="Set ModelConfig.chat_template in the training config.",
        )
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_base(weights: Path, quantization: QuantizationRecipe, *, dequantised: bool = False) -> PreTrainedModel:
    """Return the base model, frozen, in evaluation mode, on :func:`device`.

    With ``dequantised``, and on a CPU always, four-bit weights are kept as the numbers that they stand for.
    """
    dtype = compute_dtype(quantization.compute_dtype)
    config = _quantization_config(quantization, dtype)
    model = AutoModelForCausalLM.from_pretrained(
        weights,
        dtype=dtype,
        quantization_config=config,
        device_map={"": device()},
        local_files_only=True,
        use_safetensors=True,
        attn_implementation=attention_of(weights),
    )
    if quantization.bits == 4 and (dequantised or device().type == "cpu"):
        dequantise_once(model, dtype)
    disarm(model)
    model.requires_grad_(False)
    return model.eval()


def attention_of(weights: Path) -> str:
    """Return the attention to load the model with: ours where its class takes one, else torch's."""
    kind = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(AutoConfig.from_pretrained(weights, local_files_only=True)), None)
    if getattr(kind, "_supports_attention_backend", False):
        segment_attention.register()
        return segment_attention.NAME
    return "sdpa"


def _quantization_config(quantization: QuantizationRecipe, dtype: torch.dtype) -> BitsAndBytesConfig | None:
    if quantization.bits == 4:
        return BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type=quantization.quant_type,
            bnb_4bit_use_double_quant=quantization.double_quant,
            bnb_4bit_compute_dtype=dtype,
        )
    if quantization.bits == 8:
        return BitsAndBytesConfig(
            load_in_8bit=True,
            llm_int8_threshold=quantization.int8_threshold,
            llm_int8_skip_modules=list(quantization.int8_skip_modules) or None,
            llm_int8_has_fp16_weight=quantization.int8_has_fp16_weight,
        )
    return None


def dequantise_once(model: PreTrainedModel, dtype: torch.dtype) -> int:
    """Replace every 4-bit layer by a plain one with the dequantised weight; return how many there were."""
    from bitsandbytes import functional
    from bitsandbytes.nn.modules import Linear4bit

    found = [(name, module) for name, module in model.named_modules() if isinstance(module, Linear4bit)]
    for name, module in found:
        quantised: Any = module.weight  # Params4bit
        weight = functional.dequantize_4bit(quantised.data, quantised.quant_state).to(dtype)
        plain = torch.nn.Linear(module.in_features, module.out_features, bias=module.bias is not None, device="meta")
        plain.weight = torch.nn.Parameter(weight, requires_grad=False)
        if module.bias is not None:
            plain.bias = torch.nn.Parameter(module.bias.data.to(dtype), requires_grad=False)
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, plain)
    for flag, value in (("is_loaded_in_4bit", False), ("is_quantized", False), ("hf_quantizer", None)):
        setattr(model, flag, value)
    if hasattr(model.config, "quantization_config"):
        delattr(model.config, "quantization_config")
    return len(found)


def disarm(model: torch.nn.Module) -> None:
    """Keep bitsandbytes from repacking weights for inference on CPUs with AVX-512 BF16.

    Its ``Linear4bit`` repacks in eval mode and stays on that path after ``train()``, which has no gradient to
    its input: after one evaluation the training goes on with gradients of a cosine of 0.07 to the right ones
    (bitsandbytes 0.50.2; tests/e2e/test_bitsandbytes_trap.py).
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            setattr(module, "support_avx512bf16_for_cpu", False)  # noqa: B010  (torch types attributes as tensors)
