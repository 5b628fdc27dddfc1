"""The status of a Workspace on a cluster: the newest run mirrored, earlier runs and what serves kept.  Pure.

A run of the schedule takes nothing from a model that serves: until it has succeeded, state, endpoint, image and the
conditions that tell of serving stay those of the run before. Beside a run of another revision the server goes on too:
endpoint and image stay, the state is that of the new run. A run that found nothing new leaves only its entry.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from controller.conditions import Condition, stamped
from controller.intent import Intent, Refusal
from controller.kube_api import Object
from controller.mirror import mirror
from controller.observed_steps import read_steps
from controller.observed_workflow import has_ended, is_unreadable
from controller.runs import CRON_LABEL, is_nothing_new, with_run

Status = dict[str, Any]
OF_SERVING = ("state", "endpoint", "output", "cost")
CONDITIONS_OF_SERVING = ("InferenceReady", "WorkspaceSucceeded")
OF_SERVER, CONDITIONS_OF_SERVER = ("endpoint", "output"), ("InferenceReady",)
OF_STEPS = ("endpoint", "output", "training", "provision", "workerNodes", "cost")
CONDITIONS_OF_STEPS = ("NodeClaimReady", "ResourceReady", "JobStarted", "InferenceReady")


def cluster_status(
    workspace: Object,
    intent: Intent | Refusal,
    workflows: Sequence[Object],
    training: Mapping[str, Any] | None,
    now: str,
    attempts: Mapping[str, Any] | None = None,
) -> Status:
    """Return the status; ``workflows`` are the Workspace's, oldest first.

    ``training`` is the newest training event, ``attempts`` what is said of the attempts at a node.
    """
    before: Status = workspace.get("status") or {}
    generation = workspace["metadata"]["generation"]
    told = [run for run in workflows if not _found_nothing_new(run)]
    newest = _newest(before, workflows, told)
    if newest is not None:
        status = mirror(before, newest, training, generation, now, attempts)
        if is_unreadable(newest):
            status = _without_steps(before, status, newest)
        if CRON_LABEL in (newest["metadata"].get("labels") or {}) and before.get("state") == "Ready":
            status = _still_serving(before, status, OF_SERVING, CONDITIONS_OF_SERVING)
        elif before.get("endpoint") and isinstance(intent, Intent) and intent.serves:
            status = _still_serving(before, status, OF_SERVER, CONDITIONS_OF_SERVER)
    else:
        status = _without_run(before, intent, generation, now)
    if newest is None or len(workflows) > 1:
        status["runs"] = list(before.get("runs", ()))
        for run in workflows:
            status["runs"] = with_run(status["runs"], run, {step.name: step for step in read_steps(run)})
    if isinstance(intent, Intent):
        status["plan"] = dict(intent.plan_status)
    elif "plan" in before:
        status["plan"] = before["plan"]
    return _with_conditions(status, [_planned(intent), *_last_run(status)], before, generation, now)


def _newest(before: Status, workflows: Sequence[Object], told: Sequence[Object]) -> Object | None:
    """Return the run that the status tells of: where its Workflow has gone, only a later one is news."""
    names = {run["metadata"]["name"] for run in workflows}
    if before.get("workflow") and before["workflow"] not in names:
        known = [run for run in before.get("runs", ()) if run["name"] == before["workflow"]]
        since = str(known[-1].get("startedAt") or "") if known else ""
        told = [run for run in told if run["metadata"]["creationTimestamp"] > since]
    return told[-1] if told else None


def _found_nothing_new(run: Object) -> bool:
    scheduled = CRON_LABEL in (run["metadata"].get("labels") or {})
    return scheduled and is_nothing_new({step.name: step for step in read_steps(run)})


def _without_steps(before: Status, status: Status, run: Object) -> Status:
    """Say of a run whose nodes lie in Argo's database its phase and progress, and what was known of it before."""
    if before.get("workflow") != run["metadata"]["name"]:
        before = {}
    kept = {key: before[key] for key in OF_STEPS if key in before}
    known = {c["type"] for c in before.get("conditions", ())}
    conditions = [
        c for c in _kept(before, status, CONDITIONS_OF_STEPS)
        if c["type"] in known or c["type"] not in CONDITIONS_OF_STEPS
    ]  # fmt: skip
    state = "Ready" if status["state"] == "Succeeded" and kept.get("endpoint") else status["state"]
    plain = {key: value for key, value in status.items() if key not in ("steps", "step", "progress")}
    progress = (run.get("status") or {}).get("progress")
    return {**plain, **kept, "state": state, "conditions": conditions, **({"progress": progress} if progress else {})}


def _still_serving(before: Status, status: Status, fields: Sequence[str], conditions: Sequence[str]) -> Status:
    """Return the status of a run beside which an earlier model serves: its own success is what changes that."""
    if status["state"] in ("Ready", "Succeeded"):
        return status
    kept = {key: before[key] for key in fields if key in before}
    return {**status, **kept, "conditions": _kept(before, status, conditions)}


def _kept(before: Status, status: Status, kinds: Sequence[str]) -> list[dict[str, Any]]:
    """Return the conditions, those of ``kinds`` as they were before, where they were there."""
    known = {c["type"]: c for c in before.get("conditions", ()) if c["type"] in kinds}
    return [known.get(c["type"], c) for c in status["conditions"]]


def _without_run(before: Status, intent: Intent | Refusal, generation: int, now: str) -> Status:
    """Return the status where no Workflow is there: none yet, or Argo or somebody has deleted it."""
    status = {**before, "observedGeneration": generation}
    if not before.get("workflow"):
        return {**status, "state": "Pending"}
    if before.get("state") in ("Pending", "Running") and isinstance(intent, Intent):
        status["state"] = "Failed"
        conditions = [
            ("WorkspaceSucceeded", "False", "RunDeleted", _DELETED),
            ("Finished", "True", "RunDeleted", "the Workflow has been deleted"),
        ]
        return _with_conditions(status, conditions, before, generation, now)
    return status


_DELETED = (
    "The Workflow was deleted before it had ended. To run it again change the annotation kaiflow.dev/run-again:"
    " finished steps are reused."
)


def _planned(intent: Intent | Refusal) -> Condition:
    if isinstance(intent, Refusal):
        return "Planned", "False", intent.reason, intent.message
    return "Planned", "True", "Planned", f"revision {intent.revision} is planned"


def _last_run(status: Status) -> list[Condition]:
    """Return whether the newest run was good: beside a model that serves, the state does not say it."""
    runs = status.get("runs") or ()
    if not runs or not has_ended({"status": {"phase": runs[-1]["phase"]}}):
        return []
    good = runs[-1]["phase"] == "Succeeded"
    reason = runs[-1].get("reason") or ("RunSucceeded" if good else "RunFailed")
    return [("LastRunSucceeded", str(good), reason, f"{runs[-1]['name']} ended {runs[-1]['phase']}")]


def _with_conditions(status: Status, wanted: Sequence[Condition], before: Status, generation: int, now: str) -> Status:
    others = [c for c in status.get("conditions", ()) if c["type"] not in {kind for kind, *_ in wanted}]
    return {**status, "conditions": [*others, *stamped(wanted, before, generation, now)]}
