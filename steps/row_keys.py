"""What makes two rows the same row?  Keys over their content, eight bytes each.

``content`` is over everything as it stands and decides the side of the split; ``same`` is over the text less case
and white space, so that a copy that was only formatted anew is found.
"""

import json
from collections.abc import Sequence
from hashlib import blake2b

import numpy as np

from steps.messages import Conversation
from steps.spool import Numbers

KEY_BYTES = 8
WHITE_SPACE = b" \t\r\n\v\f"
_LOWER = bytes(range(256)).lower()


def row_keys(rows: Sequence[Conversation], seed: bytes) -> tuple[Numbers, Numbers]:
    """Return (content, same) of every row: its place among 2^64; a key that copies share which differ in form alone."""
    texts = [_canonical(row) for row in rows]
    data = [text.encode("utf-8", errors="replace") for text in texts]
    folded = [
        (raw if text.isascii() else text.lower().encode("utf-8", errors="replace")).translate(_LOWER, WHITE_SPACE)
        for text, raw in zip(texts, data, strict=True)
    ]
    return _keys([seed + raw for raw in data]), _keys(folded)


def _keys(texts: Sequence[bytes]) -> Numbers:
    digests = b"".join([blake2b(text, digest_size=KEY_BYTES).digest() for text in texts])
    return np.frombuffer(digests, dtype="<u8")


def _canonical(row: Conversation) -> str:
    """Return roles and contents, separated by characters that no text holds, then what few rows have."""
    text = "\x1e".join([f"{m['role']}\x1f{m['content']}" for m in row.messages])
    if row.tools or max(map(len, row.messages)) > 2:
        rest = [{k: v for k, v in m.items() if k not in ("role", "content")} for m in row.messages]
        text += "\x1d" + json.dumps([rest, row.tools], sort_keys=True)
    return text
