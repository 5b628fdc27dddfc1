"""``kaiflow status -w`` and ``kaiflow logs -f``: look again until the run has ended."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from controller.output import Format, condition, write, write_data
from controller.state import StateFolder, WorkspaceNotFoundError
from controller.workspace_tables import write_status
from presets.errors import did_you_mean

POLL_SECONDS = 0.5


def follow_status(read: Callable[[], dict[str, Any]], form: Format, *, watch: bool) -> None:
    """Print the status; with ``watch`` whenever it changes, until the run has ended."""
    shown = None
    while True:
        workspace = read()
        status = workspace.get("status", {})
        if status != shown:
            if shown is not None and form not in (Format.JSON, Format.YAML):
                write("")
            if form in (Format.JSON, Format.YAML):
                write_data(workspace, form)
            else:
                write_status(workspace)
            shown = status
        if not watch or condition(workspace, "Finished").get("status") == "True":
            return
        time.sleep(POLL_SECONDS)


def follow_logs(folder: StateFolder, step: str | None, *, follow: bool) -> None:
    """Print the logs; with ``follow`` go on until the run has ended.

    Raises:
        WorkspaceNotFoundError: there is no log of that step.
    """
    printed: dict[Path, int] = {}
    while True:
        running = folder.runner() is not None
        _print_new(_files(folder, step), printed)
        if not (follow and running):
            return
        time.sleep(POLL_SECONDS)


def _files(folder: StateFolder, step: str | None) -> list[Path]:
    files = sorted(folder.logs.glob("*.log"), key=lambda path: path.stat().st_mtime)
    if step is None:
        return files
    chosen = [path for path in files if path.stem == step]
    if not chosen:
        known = [path.stem for path in files]
        raise WorkspaceNotFoundError(
            "StepNotFound",
            f"{folder.name} has no log of a step {step!r}.",
            fix=did_you_mean(step, known, f"There are logs of {', '.join(known) or 'no step'}."),
        )
    return chosen


def _print_new(files: list[Path], printed: dict[Path, int]) -> None:
    for path in files:
        with path.open("rb") as reader:
            reader.seek(printed.get(path, 0))
            text = reader.read()
        printed[path] = printed.get(path, 0) + len(text)
        for line in text.decode(errors="replace").splitlines():
            write(f"{path.stem:<10}{line}" if len(files) > 1 else line)
