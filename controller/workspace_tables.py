"""Workspaces as tables: the columns of ``kubectl get workspace``, and one Workspace in detail."""

from collections.abc import Mapping, Sequence
from typing import Any

from controller.durations import age, between
from controller.output import condition, table_lines, write, write_table

HEADERS = ("NAME", "INSTANCE", "RESOURCEREADY", "INFERENCEREADY", "WORKSPACEREADY", "AGE")
WIDE_HEADERS = ("JOBSTARTED", "STATE", "PROGRESS", "LOSS", "EVALLOSS", "ENDPOINT")


def table(workspaces: Sequence[Mapping[str, Any]], *, wide: bool, placed: bool) -> list[str]:
    """Return the lines of ``kaiflow get``, headers first; ``placed``: with the namespaces."""
    headers = (("NAMESPACE",) if placed else ()) + HEADERS + (WIDE_HEADERS if wide else ())
    return table_lines(headers, [
        (_namespace(w) if placed else ()) + _columns(w) + (_wide_columns(w) if wide else ()) for w in workspaces
    ])  # fmt: skip


def _namespace(workspace: Mapping[str, Any]) -> tuple[str, ...]:
    return (workspace["metadata"].get("namespace") or "default",)


def _columns(workspace: Mapping[str, Any]) -> tuple[str, ...]:
    metadata, resource = workspace["metadata"], workspace.get("resource") or {}
    ready = [
        condition(workspace, kind).get("status", "")
        for kind in ("ResourceReady", "InferenceReady", "WorkspaceSucceeded")
    ]
    return (metadata["name"], resource.get("instanceType", ""), *ready, age(metadata.get("creationTimestamp")))


def _wide_columns(workspace: Mapping[str, Any]) -> tuple[str, ...]:
    status = workspace.get("status", {})
    training = status.get("training", {})
    return (
        condition(workspace, "JobStarted").get("status", ""),
        status.get("state", ""),
        status.get("progress", ""),
        _number(training.get("loss")),
        _number(training.get("evalLoss")),
        status.get("endpoint", ""),
    )


def write_status(workspace: Mapping[str, Any]) -> None:
    """Print one Workspace: its state, steps, conditions and results."""
    status = workspace.get("status", {})
    write(f"{workspace['metadata']['name']}   {status.get('state', 'Pending')}   {status.get('progress', '')} steps")
    write("")
    steps = status.get("steps", ())
    write_table(
        ("STEP", "PHASE", "TIME", "PROGRESS", "MESSAGE"),
        [
            (
                s["name"],
                s["phase"] + (" (reused)" if s.get("reused") else ""),
                between(s.get("startedAt"), s.get("finishedAt")),
                s.get("progress", ""),
                s.get("message", ""),
            )
            for s in steps
        ],
    )
    write("")
    conditions = status.get("conditions", ())
    write_table(
        ("CONDITION", "STATUS", "REASON", "MESSAGE"),
        [(c["type"], c["status"], c["reason"], c["message"]) for c in conditions],
    )
    facts = _facts(status)
    if facts:
        write("")
        for name, value in facts:
            write(f"{name:<16}{value}")


def _facts(status: Mapping[str, Any]) -> list[tuple[str, str]]:
    training, output = status.get("training", {}), status.get("output", {})
    base, tuned = training.get("baseEvalLoss"), training.get("evalLoss")
    facts = [
        (
            "held-out loss",
            f"{base:.3f} (base) -> {tuned:.3f} (tuned)" if base is not None and tuned is not None else "",
        ),
        ("image", " ".join(v for v in (output.get("image", ""), output.get("digest", "")) if v)),
        ("endpoint", status.get("endpoint", "")),
    ]
    return [(name, value) for name, value in facts if value]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
