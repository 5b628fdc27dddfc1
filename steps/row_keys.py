"""What makes two rows the same row?  Keys over their content, eight bytes each.

``content`` is over everything as it stands and decides the side of the split; ``same`` is over the text less case
and white space, so that a copy that was only formatted anew is found.
"""

import json
from collections.abc import Callable
from hashlib import blake2b

from steps.messages import Conversation

KEY_BYTES = 8


def content_key(row: Conversation, seed: int) -> int:
    """Return the row's place among 2^64, a function of its content and the seed alone."""
    return _key(_canonical(row, str), f"{seed}\n".encode())


def same_key(row: Conversation) -> int:
    """Return a key that rows share which differ in case and white space alone."""
    return _key(_canonical(row, _normalised))


def _key(data: bytes, before: bytes = b"") -> int:
    return int.from_bytes(blake2b(before + data, digest_size=KEY_BYTES).digest(), "little")


def _canonical(row: Conversation, form: Callable[[str], str]) -> bytes:
    """Return roles and contents, separated by characters that no text holds, then what few rows have."""
    text = "\x1e".join(f"{m['role']}\x1f{form(m['content'])}" for m in row.messages)
    rest = [{k: v for k, v in m.items() if k not in ("role", "content")} for m in row.messages if len(m) > 2]
    if rest or row.tools:
        text += "\x1d" + json.dumps([rest, row.tools], sort_keys=True)
    return text.encode("utf-8", errors="replace")


def _normalised(text: str) -> str:
    return " ".join(text.lower().split())
