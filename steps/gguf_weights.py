"""Weights out of a GGUF file: converted to bfloat16 safetensors, with the tokenizer beside them."""

from pathlib import Path


def convert(source: Path, folder: Path) -> None:
    """Write model and tokenizer of the GGUF file ``source`` to ``folder``."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
    # Without dequantize=True transformers 5.23 keeps a quantizer object that cannot be saved.
    model = AutoModelForCausalLM.from_pretrained(
        source.parent,
        gguf_file=source.name,
        dtype=torch.float32,
        quantization_config=GgufConfig(dequantize=True),
    )
    torch.nn.Module.to(model, torch.bfloat16)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
