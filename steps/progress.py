"""How far a step is, where Argo looks for it: ``N/M`` in ``$ARGO_PROGRESS_FILE``."""

import os
import time
from pathlib import Path

INTERVAL_SECONDS = 0.5


class ProgressFile:
    """Writes progress at most every half second, and always when the work is complete."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._written_at = 0.0

    def __call__(self, done: int, total: int) -> None:
        """Write ``done/total``; a step without a progress file stays silent."""
        now = time.monotonic()
        if self._path is None or (done < total and now - self._written_at < INTERVAL_SECONDS):
            return
        self._written_at = now
        part = self._path.with_suffix(".part")
        part.write_text(f"{done}/{total}")
        part.replace(self._path)


def progress_from_environment() -> ProgressFile:
    """Return the reporter that Argo's executor reads."""
    path = os.environ.get("ARGO_PROGRESS_FILE")
    return ProgressFile(Path(path) if path else None)
