"""The tokenizer inside a GGUF file as files: ``python -m steps.gguf_tokenizer FILE FOLDER``.

A process of its own: transformers' GGUF reader loads torch, which whoever measures rows can do without.
"""

import subprocess
import sys
from pathlib import Path


def extract(source: Path, folder: Path) -> None:
    """Write the tokenizer of the GGUF file ``source`` to ``folder``, in another process.

    Raises:
        OSError: it failed; what it said is in the message.
    """
    command = [sys.executable, "-m", "steps.gguf_tokenizer", str(source), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or ["it was killed"]
        raise OSError(f"the tokenizer in {source.name} cannot be read: {last[0]}")


def _convert(source: Path, folder: Path) -> None:
    from transformers import PreTrainedTokenizerFast
    from transformers.integrations.gguf.gguf_tokenizer_mapping import convert_gguf_tokenizer, get_gguf_tokenizer

    architecture, parts, config = get_gguf_tokenizer(str(source))
    fast, more = convert_gguf_tokenizer(architecture, parts)
    PreTrainedTokenizerFast(tokenizer_object=fast, **{**config, **more}).save_pretrained(folder)


if __name__ == "__main__":
    _convert(Path(sys.argv[1]), Path(sys.argv[2]))
