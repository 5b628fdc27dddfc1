"""``kaiflow get -w``, ``status -w`` and ``logs -f``: look again, and print what has changed."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from controller.output import Format, condition, write, write_data
from controller.state import StateFolder, WorkspaceNotFoundError
from controller.workspace_tables import write_status
from presets.errors import did_you_mean

POLL_SECONDS = 0.5
REFUSED_SECONDS = 90.0  # a controller looks at ConfigMaps and Secrets once a minute


def follow_table(read: Callable[[], list[dict[str, Any]]], lines: Callable[[list[dict[str, Any]]], list[str]]) -> None:
    """Print the table, then the row of every Workspace that comes or changes, until the user ends it."""
    seen: dict[tuple[str, str], Any] = {}
    while True:
        workspaces = read()
        headers, *rows = lines(workspaces)
        if not seen and rows:
            write(headers)
        for workspace, row in zip(workspaces, rows, strict=True):
            metadata = workspace["metadata"]
            key = (metadata.get("namespace", ""), metadata["name"])
            now = (metadata.get("generation"), workspace.get("status"))
            if seen.get(key) != now:
                seen[key] = now
                write(row)
        time.sleep(POLL_SECONDS)


def follow_status(read: Callable[[], dict[str, Any]], form: Format, *, watch: bool) -> bool:
    """Print the status; with ``watch`` whenever it changes, until the run has ended; return whether one has failed."""
    shown = None
    refused_at: float | None = None
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
        if not watch:
            return False
        if _of_now(workspace, "Finished", "True"):
            return bool(status.get("state") == "Failed")
        now = time.monotonic()
        refused_at = (now if refused_at is None else refused_at) if _is_refused(workspace) else None
        if refused_at is not None and now - refused_at >= REFUSED_SECONDS:
            return True
        time.sleep(POLL_SECONDS)


def _is_refused(workspace: dict[str, Any]) -> bool:
    """Whether nothing runs, nor will; what is missing may just have been made, and the controller not have looked."""
    return _of_now(workspace, "Planned", "False") and condition(workspace, "Finished").get("status") != "False"


def _of_now(workspace: dict[str, Any], kind: str, value: str) -> bool:
    """Whether a condition is told of what the Workspace says now; a run of what it said before does not count."""
    told = condition(workspace, kind)
    generation = workspace["metadata"].get("generation", 0)
    return bool(told.get("status") == value and told.get("observedGeneration", generation) >= generation)


def follow_logs(folder: StateFolder, step: str | None, *, follow: bool, tail: int | None) -> None:
    """Print the logs, of each the last ``tail`` lines; with ``follow`` go on until the run has ended.

    Raises:
        WorkspaceNotFoundError: there is no log of that step.
    """
    printed: dict[Path, int] = {}
    while True:
        running = folder.runner() is not None
        _print_new(_files(folder, step), printed, tail)
        if not (follow and running):
            return
        time.sleep(POLL_SECONDS)


def last(lines: list[str], count: int | None) -> list[str]:
    """Return the last lines; None: all of them."""
    return lines if count is None else lines[max(0, len(lines) - count) :]


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


def _print_new(files: list[Path], printed: dict[Path, int], tail: int | None) -> None:
    for path in files:
        with path.open("rb") as reader:
            reader.seek(printed.get(path, 0))
            text = reader.read()
        lines = text.decode(errors="replace").splitlines()
        if path not in printed:
            lines = last(lines, tail)
        printed[path] = printed.get(path, 0) + len(text)
        for line in lines:
            write(f"{path.stem:<10}{line}" if len(files) > 1 else line)
