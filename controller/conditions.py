"""The conditions of a Workspace out of its steps.  Pure.

They are ``metav1.Condition`` with KAITO's types and reasons, in KAITO's order, plus ``Finished``, true for both ends,
so that ``kubectl wait`` returns.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Literal

from controller.diagnosis import diagnose
from controller.failure import Failure, explain
from controller.observed_steps import FAILED, StepStatus

State = Literal["Pending", "Running", "Succeeded", "Ready", "Failed"]
Condition = tuple[str, str, str, str]  # type, status, reason, message
LONGEST_MESSAGE = 32768  # of a metav1.Condition


def of_run(
    steps: Mapping[str, StepStatus],
    state: State,
    failure: Failure | None,
    attempts: Mapping[str, Any],
    *,
    finished: bool,
    makes_nodes: bool,
) -> list[Condition]:
    """Return the conditions of a run; ``attempts`` is what is heard of the node while it is waited for."""
    wanted = []
    if "provision" in steps:  # it is not in a Workflow that an older kaiflow made, say
        wanted += [*([_claim(steps["provision"], attempts)] if makes_nodes else []), _resource(steps["provision"])]
    if "tune" in steps:
        wanted.append(_job(steps["tune"]))
    if "deploy" in steps:
        wanted.append(_inference(steps["deploy"]))
    return [*wanted, _succeeded(state, failure, steps), _finished(state, finished=finished)]


def stamped(wanted: Iterable[Condition], before: Mapping[str, Any], generation: int, now: str) -> list[dict[str, Any]]:
    """Return conditions as Kubernetes has them: transition times kept where the status did not change."""
    known = {c["type"]: c for c in before.get("conditions", ())}
    return [
        {
            "type": kind,
            "status": value,
            "reason": reason,
            "message": message[:LONGEST_MESSAGE],
            "observedGeneration": generation,
            "lastTransitionTime": known[kind]["lastTransitionTime"]
            if kind in known and known[kind]["status"] == value
            else now,
        }
        for kind, value, reason, message in wanted
    ]


def _ready(step: StepStatus, kind: str, yes: tuple[str, str], no: tuple[str, str]) -> Condition:
    """Return the condition of a step that is there or is not: ``yes`` and ``no`` are reason and message."""
    if step.phase == "Succeeded":
        return kind, "True", *yes
    if step.phase in FAILED:
        why = explain(step.name, step.message)
        return kind, "False", why.reason, why.message
    if step.phase == "Pending" and (known := diagnose(step.name, step.message)) is not None:
        return kind, "False", known.reason, f"{known.message} {known.fix}"
    return kind, "False", *no


def _claim(step: StepStatus, attempts: Mapping[str, Any]) -> Condition:
    """Return KAITO's condition of the node that is made; while it is not there, why the last attempt gave none."""
    refused = attempts.get("refused") or ()
    said = "Ready NodeClaims are not enough"
    if step.phase == "Running" and refused:
        last = refused[-1]
        return "NodeClaimReady", "False", last["reason"], f"{last['attempt']}: {last['message']}"
    if step.phase == "Running" and attempts.get("attempt"):
        said += f"; {attempts['attempt']}: {attempts.get('waitsFor', 'is asked for')}"
    return _ready(
        step, "NodeClaimReady", ("NodeClaimsReady", "Enough NodeClaims are ready"), ("NodeClaimNotReady", said)
    )


def _resource(step: StepStatus) -> Condition:
    return _ready(
        step,
        "ResourceReady",
        ("workspaceResourceStatusSuccess", "workspace resource is ready"),
        ("workspaceResourceStatusNotReady", "no machine has been provisioned yet"),
    )


def _job(step: StepStatus) -> Condition:
    if step.phase in FAILED:
        why = explain(step.name, step.message)
        return "JobStarted", "False", "WorkspaceTuningJobStatusFailed", f"{why.reason}: {why.message}"
    if step.phase in ("Running", "Succeeded"):
        return "JobStarted", "True", "WorkspaceTuningJobStatusStarted", "Tuning job has started"
    if step.phase == "Pending" and (known := diagnose(step.name, step.message)) is not None:
        return "JobStarted", "False", known.reason, f"{known.message} {known.fix}"
    return "JobStarted", "False", "WorkspaceTuningJobStatusPending", "Tuning job has not started"


def _inference(step: StepStatus) -> Condition:
    return _ready(
        step,
        "InferenceReady",
        ("WorkspaceInferenceStatusSuccess", "Inference has been deployed successfully"),
        ("WorkspaceInferenceStatusPending", "Inference workload is not ready"),
    )


def _succeeded(state: State, failure: Failure | None, steps: Mapping[str, StepStatus]) -> Condition:
    if state in ("Succeeded", "Ready"):
        return "WorkspaceSucceeded", "True", "workspaceSucceeded", "workspace succeeds"
    if failure is not None:
        said = f"{failure.step}: {failure.reason}: {failure.message} {failure.fix}".strip()
        return "WorkspaceSucceeded", "False", "workspaceFailed", said
    waiting = [diagnose(step.name, step.message) for step in steps.values() if step.phase == "Pending"]
    known = next((found for found in waiting if found is not None), None)
    if known is not None:  # whichever step it is: not all have a condition of their own
        return "WorkspaceSucceeded", "False", known.reason, f"{known.message} {known.fix}"
    return "WorkspaceSucceeded", "False", "workspacePending", "workspace has not completed"


def _finished(state: State, *, finished: bool) -> Condition:
    if finished:
        return "Finished", "True", f"Run{'Failed' if state == 'Failed' else 'Succeeded'}", f"the run ended {state}"
    return "Finished", "False", "RunInProgress", "the run has not ended"
