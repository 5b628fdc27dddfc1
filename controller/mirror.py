"""Workflow status -> Workspace status.  One pure function for the controller and for the local engine.

Conditions are ``metav1.Condition`` with KAITO's types and reasons, plus ``Finished``, true for both ends, so
that ``kubectl wait`` returns. A step that is retried never makes the Workspace Failed.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Literal

from controller.attempts import provision_status
from controller.cost import cost
from controller.diagnosis import diagnose
from controller.failure import Failure, explain
from controller.observed_steps import StepStatus, output, read_steps
from controller.runs import number, with_run

State = Literal["Pending", "Running", "Succeeded", "Ready", "Failed"]
_FAILED = ("Failed", "Error")
_LASTING = ("loss", "tokensPerSecond", "steps", "stepCut")  # of a training's figures, when it has ended
LONGEST_MESSAGE = 32768  # of a metav1.Condition


def mirror(
    previous: Mapping[str, Any] | None,
    workflow: Mapping[str, Any],
    training: Mapping[str, Any] | None,
    generation: int,
    now: str,
    attempts: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the Workspace's status for an observed Workflow.

    ``previous`` is the status before (transition times and earlier runs are kept), ``training`` the newest
    training event of the tune step's log, ``attempts`` what the log of the provision step says, ``now`` the time as
    Kubernetes writes it.
    """
    steps = read_steps(workflow)
    by_name = {step.name: step for step in steps}
    failure = find_failure(workflow, steps)
    phase = (workflow.get("status") or {}).get("phase") or "Pending"
    finished = phase in ("Succeeded", *_FAILED)
    state = _state(phase, by_name)
    before = previous or {}
    status: dict[str, Any] = {
        "observedGeneration": generation,
        "state": state,
        "workflow": workflow["metadata"]["name"],
        "step": next((s.name for s in steps if s.phase == "Running"), ""),
        "progress": f"{sum(s.phase in ('Succeeded', 'Skipped') for s in steps)}/{len(steps)}",
        "steps": [step.to_json() for step in steps],
        "provision": provision_status(by_name, attempts, _told_before(before, workflow, "provision")),
        "workerNodes": [nodes] if (nodes := output(by_name, "provision", "nodes")) else [],
        "training": _training(by_name, training, _told_before(before, workflow, "training")),
        "output": _pick(image=output(by_name, "push", "image"), digest=output(by_name, "push", "digest")),
        "endpoint": output(by_name, "deploy", "endpoint"),
        "cost": cost(by_name),
    }
    status = {key: value for key, value in status.items() if value not in (None, "", [], {})}
    status["conditions"] = _conditions(before, by_name, state, failure, generation, now, finished=finished)
    status["runs"] = with_run(before.get("runs", ()), workflow, by_name)
    return status


def find_failure(workflow: Mapping[str, Any], steps: list[StepStatus]) -> Failure | None:
    """Return why the run failed, None while it has not."""
    status = workflow.get("status") or {}
    if status.get("phase") not in _FAILED:
        return None
    failed = [step for step in steps if step.phase in _FAILED]
    # A real failure explains more than the stop of a step beside it.
    found = sorted((explain(s.name, s.message) for s in failed), key=lambda f: f.reason in ("Stopped", "Killed"))
    return found[0] if found else explain("the run", str(status.get("message", "")))


def _state(phase: str, steps: Mapping[str, StepStatus]) -> State:
    if phase in _FAILED:
        return "Failed"
    if phase == "Succeeded":
        deployed = "deploy" in steps and steps["deploy"].phase == "Succeeded"
        return "Ready" if deployed else "Succeeded"
    return "Running" if phase == "Running" else "Pending"


def _pick(**values: str) -> dict[str, str]:
    return {key: value for key, value in values.items() if value}


def _told_before(before: Mapping[str, Any], workflow: Mapping[str, Any], field: str) -> Mapping[str, Any]:
    """Return what has been told of this run out of a log, which may be gone, or was read by a controller before us."""
    told: Mapping[str, Any] = before.get(field) or {}
    return told if before.get("workflow") == workflow["metadata"]["name"] else {}


def _training(
    steps: Mapping[str, StepStatus], event: Mapping[str, Any] | None, told: Mapping[str, Any]
) -> dict[str, Any]:
    phase = steps["tune"].phase if "tune" in steps else ""
    running = phase == "Running"
    live = dict(event or {})
    unread = phase in ("Succeeded", *_FAILED) and not live
    lasting = {key: told[key] for key in _LASTING if unread and key in told}
    body = {
        "loss": live.get("loss"),
        "tokensPerSecond": live.get("tokens_per_second"),
        "etaSeconds": live.get("eta_seconds") if running else None,
        "baseEvalLoss": number(output(steps, "tune", "base-loss")),
        "evalLoss": number(output(steps, "tune", "tuned-loss")),
        "steps": output(steps, "tune", "steps") or _trained(live),
        "stepCut": live.get("step_cut"),  # fewer packs at a time, layers computed again: what memory has asked for
    }
    return lasting | {key: value for key, value in body.items() if value is not None}


def _trained(event: Mapping[str, Any]) -> str | None:
    return f"{event['trained_steps']}/{event['total_steps']}" if "total_steps" in event else None


def _conditions(
    before: Mapping[str, Any],
    steps: Mapping[str, StepStatus],
    state: State,
    failure: Failure | None,
    generation: int,
    now: str,
    *,
    finished: bool,
) -> list[dict[str, Any]]:
    """Return the conditions in KAITO's order, transition times kept where the status did not change."""
    wanted = [
        *([_resource(steps)] if "provision" in steps else []),  # of a Workflow that an older kaiflow made, say
        *([_job(steps)] if "tune" in steps else []),
    ]
    if "deploy" in steps:
        wanted.append(_inference(steps))
    wanted += [_succeeded(state, failure, steps), _finished(state, finished=finished)]
    return stamped(wanted, before, generation, now)


Condition = tuple[str, str, str, str]  # type, status, reason, message


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
    if step.phase in _FAILED:
        why = explain(step.name, step.message)
        return kind, "False", why.reason, why.message
    if step.phase == "Pending" and (known := diagnose(step.name, step.message)) is not None:
        return kind, "False", known.reason, f"{known.message} {known.fix}"
    return kind, "False", *no


def _resource(steps: Mapping[str, StepStatus]) -> Condition:
    return _ready(
        steps["provision"],
        "ResourceReady",
        ("workspaceResourceStatusSuccess", "workspace resource is ready"),
        ("workspaceResourceStatusNotReady", "no machine has been provisioned yet"),
    )


def _job(steps: Mapping[str, StepStatus]) -> Condition:
    step = steps["tune"]
    if step.phase in _FAILED:
        why = explain(step.name, step.message)
        return "JobStarted", "False", "WorkspaceTuningJobStatusFailed", f"{why.reason}: {why.message}"
    if step.phase in ("Running", "Succeeded"):
        return "JobStarted", "True", "WorkspaceTuningJobStatusStarted", "Tuning job has started"
    if step.phase == "Pending" and (known := diagnose(step.name, step.message)) is not None:
        return "JobStarted", "False", known.reason, f"{known.message} {known.fix}"
    return "JobStarted", "False", "WorkspaceTuningJobStatusPending", "Tuning job has not started"


def _inference(steps: Mapping[str, StepStatus]) -> Condition:
    return _ready(
        steps["deploy"],
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
