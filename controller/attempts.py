"""The attempts at a node: while they are made from the log of the provision step, afterwards from its result."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from controller.observed_steps import StepStatus, output

REFUSAL = ("attempt", "reason", "message")


def attempts_in(lines: Iterable[str]) -> dict[str, Any]:
    """Return what the log says: the attempt that is made, what it waits for, those that gave no node."""
    found: dict[str, Any] = {}
    refused: list[dict[str, str]] = []
    for line in lines:
        try:
            event = json.loads(line)
        except ValueError:  # what libraries write
            continue
        kind = event.get("event") if isinstance(event, dict) else None
        if kind == "attempt":
            found = {"attempt": str(event.get("attempt"))}
        elif kind == "waiting" and found:
            found["waitsFor"] = str(event.get("on"))
        elif kind == "refused":
            found = {}
            refused.append({key: str(event.get(key, "")) for key in REFUSAL})
    return {**found, **({"refused": refused} if refused else {})}


def provision_status(
    steps: Mapping[str, StepStatus], live: Mapping[str, Any] | None, told: Mapping[str, Any]
) -> dict[str, Any]:
    """Return on which machine the run is, or which is tried, and which attempts gave none.

    ``live`` is what the log says now, ``told`` what of this run has been told: a log goes with its pod.
    """
    machine = output(steps, "provision", "instance-type")
    running = "provision" in steps and steps["provision"].phase == "Running"
    if machine:
        refused = _refused(output(steps, "provision", "attempts"))
        return {"instanceType": machine, **({"refused": refused} if refused else {})}
    now = dict(live or {}) if running else {}
    known = {r["attempt"]: r for source in (told, live or {}) for r in source.get("refused", ())}
    return {**now, **({"refused": list(known.values())} if known else {})}


def _refused(told: str) -> list[dict[str, str]]:
    try:
        return [{key: attempt[key] for key in REFUSAL} for attempt in json.loads(told or "[]")]
    except (ValueError, LookupError, TypeError):
        return []
