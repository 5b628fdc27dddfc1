"""Why did a run fail?  The step that explains it best, of all that have not succeeded.  Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

from controller.failure import Failure, explain
from controller.observed_steps import FAILED, StepStatus


def find_failure(workflow: Mapping[str, Any], steps: Sequence[StepStatus]) -> Failure | None:
    """Return why the run failed, None while it has not."""
    status = workflow.get("status") or {}
    if status.get("phase") not in FAILED:
        return None
    failed = [step for step in steps if step.phase in FAILED]
    # A real failure explains more than the stop of a step beside it.
    found = sorted((explain(s.name, s.message) for s in failed), key=lambda f: f.reason in ("Stopped", "Killed"))
    return found[0] if found else explain("the run", str(status.get("message", "")))
