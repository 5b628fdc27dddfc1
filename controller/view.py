"""What a person sees while a run goes on: a live picture on a terminal, plain lines elsewhere."""

import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from controller.durations import between, seconds_text

BARS = "▁▂▃▄▅▆▇█"
SPARKLINE_WIDTH = 48
PLAIN_REPORT_SECONDS = 10.0
ICONS = {
    "Succeeded": ("✔", "green"),
    "Running": ("●", "cyan"),
    "Pending": ("·", "dim"),
    "Failed": ("✘", "red"),
    "Error": ("✘", "red"),
    "Skipped": ("-", "dim"),
    "Omitted": ("-", "dim"),
}


class View(Protocol):
    """Shows a run; entered before it starts, called at every change."""

    def __enter__(self) -> "View":
        """Begin to show."""
        ...

    def __exit__(self, *_: object) -> None:
        """End to show."""

    def __call__(self, workspace: dict[str, Any], events: list[dict[str, Any]]) -> None:
        """Show the Workspace and the training events since the last call."""


def view_for(console: Console) -> View:
    """Return the live view on a terminal, plain lines elsewhere."""
    return LiveView(console) if console.is_terminal and not console.is_dumb_terminal else PlainView(console)


class LiveView:
    """The DAG with phases, a progress bar, the time left and the loss as a sparkline."""

    def __init__(self, console: Console) -> None:
        self._workspace: dict[str, Any] = {}
        self._losses: list[float] = []
        self._lock = threading.Lock()
        self._live = Live(console=console, refresh_per_second=4, get_renderable=self._render)

    def __enter__(self) -> "LiveView":
        self._live.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.__exit__(None, None, None)

    def __call__(self, workspace: dict[str, Any], events: list[dict[str, Any]]) -> None:
        """Take the newest state; the terminal is redrawn four times a second."""
        with self._lock:
            self._workspace = workspace
            self._losses += [event["loss"] for event in events if event.get("loss") is not None]

    def _render(self) -> RenderableType:
        with self._lock:
            return render(self._workspace, self._losses)


class PlainView:
    """One line at every change of a step's phase, and the training figures every ten seconds."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._phases: dict[str, str] = {}
        self._reported_at = 0.0
        self._lock = threading.Lock()

    def __enter__(self) -> "PlainView":
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing to tidy up."""

    def __call__(self, workspace: dict[str, Any], events: list[dict[str, Any]]) -> None:
        """Print what has changed."""
        with self._lock:
            for step in workspace.get("status", {}).get("steps", ()):
                if step["phase"] != self._phases.get(step["name"], "Pending"):
                    self._phases[step["name"]] = step["phase"]
                    self._print(_line(step))
            if events and time.monotonic() - self._reported_at >= PLAIN_REPORT_SECONDS:
                self._reported_at = time.monotonic()
                self._print(training_text(events[-1]))

    def _print(self, line: str) -> None:
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)


def render(workspace: Mapping[str, Any], losses: Sequence[float]) -> RenderableType:
    """Return the picture of a run."""
    status = workspace.get("status", {})
    title = Text.assemble(
        (workspace.get("metadata", {}).get("name", ""), "bold"),
        f"  {status.get('state', 'Pending')}",
        (f"  {status.get('progress', '')} steps", "dim"),
    )
    table = Table.grid(padding=(0, 2))
    for step in status.get("steps", ()):
        icon, style = ICONS.get(step["phase"], ("?", ""))
        table.add_row(
            Text(icon, style), Text(step["name"], "bold" if step["phase"] == "Running" else ""), _bar(step),
            Text(_duration(step), "dim"), Text(_note(step, status), "dim"),
        )  # fmt: skip
    parts: list[RenderableType] = [title, table]
    training = status.get("training", {})
    if losses:
        eta = training.get("etaSeconds")
        left = f"   {seconds_text(eta)} left" if eta else ""
        parts.append(Text(f"  loss {losses[-1]:.3f}  {sparkline(losses)}{left}"))
    return Group(*parts)


def sparkline(values: Sequence[float], width: int = SPARKLINE_WIDTH) -> str:
    """Return the values as one line of bars, averaged down to ``width``."""
    if not values:
        return ""
    size = max(1, -(-len(values) // width))
    groups = [values[i : i + size] for i in range(0, len(values), size)]
    means = [sum(group) / len(group) for group in groups]
    low, high = min(means), max(means)
    scale = (len(BARS) - 1) / (high - low) if high > low else 0.0
    return "".join(BARS[round((mean - low) * scale)] for mean in means)


def training_text(event: Mapping[str, Any]) -> str:
    """Return one line about the training."""
    loss = f"loss {event['loss']:.3f}, " if event.get("loss") is not None else ""
    return (
        f"  tune       step {event['trained_steps']}/{event['total_steps']}, {loss}"
        f"{event['tokens_per_second']:.0f} tokens/s, {seconds_text(event['eta_seconds'])} left"
    )


def _line(step: Mapping[str, Any]) -> str:
    icon = ICONS.get(step["phase"], ("?", ""))[0]
    duration = f" ({_duration(step)})" if step["phase"] not in ("Running", "Pending") and _duration(step) else ""
    reused = " reused" if step.get("reused") else ""
    message = f": {step['message']}" if step["phase"] in ("Failed", "Error") and step.get("message") else ""
    return f"{icon} {step['name']:<10} {step['phase']}{reused}{duration}{message}"


def _bar(step: Mapping[str, Any]) -> RenderableType:
    done, _, total = str(step.get("progress", "")).partition("/")
    if step["phase"] == "Succeeded":
        return ProgressBar(total=1, completed=1, width=24)
    if step["phase"] != "Running" or not total.isdecimal() or int(total) == 0:
        return ProgressBar(total=1, completed=0, width=24)
    return ProgressBar(total=int(total), completed=int(done), width=24, pulse=int(total) == 1)


def _duration(step: Mapping[str, Any]) -> str:
    return between(step.get("startedAt"), step.get("finishedAt"))


def _note(step: Mapping[str, Any], status: Mapping[str, Any]) -> str:
    if step.get("reused"):
        return "reused"
    if step["phase"] == "Running" and step["name"] == "tune":
        return f"{step.get('progress', '')}" + (
            f"  {speed:.0f} tokens/s" if (speed := status.get("training", {}).get("tokensPerSecond")) else ""
        )
    return str(step.get("message", ""))[:80]
