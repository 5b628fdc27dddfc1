"""What makes two rows the same row?  Keys over their content, eight bytes each.

``content`` is over everything as it stands and decides the side of the split; ``same`` is over the text less case
and white space, so that a copy that was only formatted anew is found.
"""

import json
from hashlib import blake2b

from steps.messages import Conversation

KEY_BYTES = 8
WHITE_SPACE = b" \t\r\n\v\f"


def row_keys(row: Conversation, seed: bytes) -> tuple[int, int]:
    """Return (content, same): the row's place among 2^64, and a key that copies share which differ in form alone."""
    text = _canonical(row)
    data = text.encode("utf-8", errors="replace")
    lower = data.lower() if text.isascii() else text.lower().encode("utf-8", errors="replace")
    return _key(seed + data), _key(lower.translate(None, WHITE_SPACE))


def _key(data: bytes) -> int:
    return int.from_bytes(blake2b(data, digest_size=KEY_BYTES).digest(), "little")


def _canonical(row: Conversation) -> str:
    """Return roles and contents, separated by characters that no text holds, then what few rows have."""
    text = "\x1e".join([f"{m['role']}\x1f{m['content']}" for m in row.messages])
    if row.tools or any(len(m) > 2 for m in row.messages):
        rest = [{k: v for k, v in m.items() if k not in ("role", "content")} for m in row.messages]
        text += "\x1d" + json.dumps([rest, row.tools], sort_keys=True)
    return text
