"""The newest training figures, read from the end of the tune step's log (JSON lines)."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

TAIL_BYTES = 16384


def training_events(log: Path, tail_bytes: int = TAIL_BYTES) -> list[dict[str, Any]]:
    """Return the training events within the last bytes of ``log``, oldest first."""
    try:
        with log.open("rb") as reader:
            reader.seek(max(0, log.stat().st_size - tail_bytes))
            lines = reader.read().splitlines()
    except OSError:
        return []
    return events_in(lines)


def events_in(lines: Iterable[str | bytes]) -> list[dict[str, Any]]:
    """Return the training events among log lines, oldest first."""
    events = []
    for line in lines:
        try:
            event = json.loads(line)
        except ValueError:
            continue  # the first line of the tail may be cut, and libraries write plain text
        if isinstance(event, dict) and event.get("event") == "training":
            events.append(event)
    return events
