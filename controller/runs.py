"""``status.runs``: the newest runs of a Workspace, and how each has ended.  Pure."""

from collections.abc import Iterable, Mapping
from typing import Any

from controller.cost import cost
from controller.observed_steps import ENDED, StepStatus, output
from controller.run_failure import find_failure

KEEP_RUNS = 10
CRON_LABEL = "workflows.argoproj.io/cron-workflow"  # Argo's, on what a CronWorkflow has started
NOTHING_NEW, DELETED = "NothingNew", "RunDeleted"

Run = dict[str, Any]


def with_run(
    before: Iterable[Mapping[str, Any]], workflow: Mapping[str, Any], steps: Mapping[str, StepStatus]
) -> list[Run]:
    """Return the runs, newest last: that of ``workflow`` replaces its own earlier entry."""
    entry = run_entry(workflow, steps)
    kept = [dict(run) for run in before if not _same(run, entry)]
    return sorted([*kept, entry], key=lambda run: str(run.get("startedAt") or "9999"))[-KEEP_RUNS:]


def without_gone(before: Iterable[Mapping[str, Any]], workflows: Iterable[Mapping[str, Any]], now: str) -> list[Run]:
    """Return the runs, those ended whose Workflows were deleted before they had ended."""
    there = {workflow["metadata"]["name"] for workflow in workflows}
    return [
        {"startedAt": now, **run, "phase": "Failed", "reason": DELETED, "finishedAt": now}
        if run["phase"] not in ENDED and run["name"] not in there else dict(run)
        for run in before
    ]  # fmt: skip


def _same(run: Mapping[str, Any], entry: Mapping[str, Any]) -> bool:
    began = run.get("startedAt") in (None, entry.get("startedAt"))
    return bool(run["name"] == entry["name"] and began)


def run_entry(workflow: Mapping[str, Any], steps: Mapping[str, StepStatus]) -> Run:
    """Return the entry of one run."""
    metadata, status = workflow["metadata"], workflow.get("status") or {}
    labels = metadata.get("labels") or {}
    phase, spent = status.get("phase") or "Pending", cost(workflow, steps)
    entry = {
        "name": metadata["name"],
        "phase": phase,
        "revision": labels.get("kaiflow.dev/revision"),
        "scheduled": True if is_scheduled(workflow) else None,
        "reason": _reason(workflow, phase, steps),
        "startedAt": status.get("startedAt"),
        "finishedAt": status.get("finishedAt"),
        "digest": output(steps, "push", "digest"),
        "baseEvalLoss": number(output(steps, "tune", "base-loss")),
        "evalLoss": number(output(steps, "tune", "tuned-loss")),
        "gate": output(steps, "push", "verdict"),
        "nodeSeconds": spent.get("nodeSeconds"),
        "usd": spent.get("usd"),
    }
    return {key: value for key, value in entry.items() if value not in (None, "")}


def is_scheduled(workflow: Mapping[str, Any]) -> bool:
    """Whether a CronWorkflow has started the run."""
    return CRON_LABEL in (workflow["metadata"].get("labels") or {})


def _reason(workflow: Mapping[str, Any], phase: str, steps: Mapping[str, StepStatus]) -> str | None:
    if phase == "Succeeded" and is_nothing_new(steps):
        return NOTHING_NEW
    failure = find_failure(workflow, list(steps.values()))
    return failure.reason if failure else None


def is_nothing_new(steps: Mapping[str, StepStatus]) -> bool:
    """Whether the run has found the data as it was, and done nothing."""
    return output(steps, "fetch", "changed") == "false"


def number(text: str) -> float | None:
    """Return the number that a step has written, None where it is none."""
    try:
        return float(text)
    except ValueError:
        return None
