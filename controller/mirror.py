"""Workflow status -> Workspace status.  One pure function for the controller and for the local engine.

A step that is retried never makes the Workspace Failed.
"""

from collections.abc import Mapping
from typing import Any

from controller.attempts import provision_status
from controller.conditions import State, of_run, stamped
from controller.cost import cost
from controller.observed_steps import FAILED, StepStatus, output, read_steps
from controller.run_failure import find_failure
from controller.runs import number, with_run
from steps.contract import PROVISIONER_LABEL

MAKERS = ("karpenter", "aks")  # who make nodes
_LASTING = ("loss", "tokensPerSecond", "steps", "stepCut")  # of a training's figures, when it has ended


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
    finished = phase in ("Succeeded", *FAILED)
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
        "targetNodeCount": 1 if "provision" in by_name else None,  # tuning runs on one
        "workerNodes": [nodes] if (nodes := output(by_name, "provision", "nodes")) else [],
        "training": _training(by_name, training, _told_before(before, workflow, "training")),
        "output": _pick(image=output(by_name, "push", "image"), digest=output(by_name, "push", "digest")),
        "endpoint": output(by_name, "deploy", "endpoint"),
        "cost": cost(workflow, by_name),
    }
    status = {key: value for key, value in status.items() if value not in (None, "", [], {})}
    maker = (workflow["metadata"].get("labels") or {}).get(PROVISIONER_LABEL, "")
    wanted = of_run(by_name, state, failure, attempts or {}, finished=finished, makes_nodes=maker in MAKERS)
    status["conditions"] = stamped(wanted, before, generation, now)
    status["runs"] = with_run(before.get("runs", ()), workflow, by_name)
    return status


def _state(phase: str, steps: Mapping[str, StepStatus]) -> State:
    if phase in FAILED:
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
    unread = phase in ("Succeeded", *FAILED) and not live
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
