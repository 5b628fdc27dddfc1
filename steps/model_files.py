"""Which files of a folder are a model's, and are they all there?  Safetensors, its config, its tokenizer; no code.

By name, one by one: nothing pickled and nothing that runs is ever taken along.
"""

import fnmatch
import json
from pathlib import Path

from presets.errors import DataError

WANTED_FILES = (
    "*.safetensors", "*.safetensors.index.json", "config.json", "generation_config.json", "LICENSE*",
    "tokenizer.json", "tokenizer_config.json", "tokenizer.model", "tokenizer.model.v*", "spiece.model",
    "sentencepiece.bpe.model", "tekken.json", "special_tokens_map.json", "added_tokens.json", "vocab.json", "vocab.txt",
    "merges.txt", "chat_template.jinja", "chat_template.json",
)  # fmt: skip
UNWANTED_FILES = ("consolidated*.safetensors",)  # the same weights once more, in the layout of their makers
LONGEST_HEADER_BYTES = 100_000_000  # safetensors' own limit


def is_wanted(path: Path) -> bool:
    """Whether the file is one of a model's."""
    wanted = any(fnmatch.fnmatch(path.name, pattern) for pattern in WANTED_FILES)
    return wanted and path.is_file() and not any(fnmatch.fnmatch(path.name, pattern) for pattern in UNWANTED_FILES)


def require_whole(folder: Path, shown: str) -> None:
    """Return when the folder holds a model: every file of safetensors whole, every one that its index names there.

    Raises:
        DataError: it does not.
    """
    weights = sorted(path for path in folder.glob("*.safetensors") if is_wanted(path))
    if not weights or not (folder / "config.json").is_file():
        raise DataError(
            "NoSafetensors", f"{shown} holds no config.json and *.safetensors.",
            fix="Name a model as the hub lays it out; pickled weights are never loaded.",
        )  # fmt: skip
    damaged = [path.name for path in weights if not _is_safetensors(path)]
    missing = sorted(_named_by_index(folder) - {path.name for path in weights})
    problems = [*(f"{name} is cut short" for name in damaged), *(f"{name} is missing" for name in missing)]
    if problems:
        raise DataError(
            "WeightsIncomplete", f"Of {shown} {', '.join(problems)}.", fix="Fetch the model again, every file of it."
        )


def _is_safetensors(path: Path) -> bool:
    """Whether the file is as long as its header says (safetensors' format, README of huggingface/safetensors)."""
    size = path.stat().st_size
    with path.open("rb") as reader:
        length = int.from_bytes(reader.read(8), "little")
        if not 2 <= length <= min(size - 8, LONGEST_HEADER_BYTES):
            return False
        try:
            header = json.loads(reader.read(length))
            ends = [tensor["data_offsets"][1] for name, tensor in header.items() if name != "__metadata__"]
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            return False
    return bool(8 + length + max(ends, default=0) == size)


def _named_by_index(folder: Path) -> set[str]:
    named: set[str] = set()
    for path in folder.glob("*.safetensors.index.json"):
        try:
            named |= {str(name) for name in json.loads(path.read_bytes())["weight_map"].values()}
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            continue  # whoever loads it does without
    return {name for name in named if not any(fnmatch.fnmatch(name, pattern) for pattern in UNWANTED_FILES)}
