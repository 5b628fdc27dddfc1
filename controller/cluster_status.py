"""The status of a Workspace on a cluster: the newest run mirrored, earlier runs and what serves kept.  Pure.

A run of the schedule takes nothing from a model that serves: until it has succeeded, state, endpoint, image and the
conditions that tell of serving stay those of the run before. Beside a run of another revision the server goes on too:
endpoint and image stay, the state is that of the new run. A run that found nothing new leaves only its entry.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from controller.compiling import GENERATION_LABEL
from controller.conditions import Condition, stamped
from controller.intent import Intent, Refusal, started
from controller.kube_api import Object
from controller.mirror import mirror
from controller.observed_steps import ENDED, output, read_steps
from controller.observed_workflow import has_ended, is_unreadable
from controller.output import condition
from controller.runs import is_scheduled, with_run, without_gone

Status = dict[str, Any]
REVISION_LABEL = "kaiflow.dev/revision"
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
    runs = shown(workspace, workflows)
    status = before
    for run in runs[:-1]:  # what ended since the last look, or nobody remembers: it may be what serves
        status = _with_run(status, run, workspace, intent, None, now, None)
    if runs:
        status = _with_run(status, runs[-1], workspace, intent, training, now, attempts)
    else:
        status = _without_run(workspace, intent, now)
    status = {**status, "observedGeneration": generation}
    if len(workflows) > 1 or not runs:
        status["runs"] = list(before.get("runs", ()))
        for run in workflows:
            status["runs"] = with_run(status["runs"], run, {step.name: step for step in read_steps(run)})
    status["runs"] = without_gone(status.get("runs", ()), workflows, now)
    if isinstance(intent, Intent):
        status["plan"] = dict(intent.plan_status)
    elif "plan" in before:
        status["plan"] = before["plan"]
    return _with_conditions(status, [_planned(intent), *_last_run(status)], before, generation, now)


def shown(workspace: Object, workflows: Sequence[Object]) -> Sequence[Object]:
    """Return the runs that the status is made of, oldest first; it tells of the last.

    That is the run that it told of, and those that have followed. A run of the schedule is none of them until it has
    found something new: while it waits for another run, or looks at the rows, nothing is different for anybody.
    """
    before: Status = workspace.get("status") or {}
    told = [run for run in workflows if _is_news(run)]
    names = [run["metadata"]["name"] for run in told]
    last = before.get("workflow")
    if last in names:
        return told[names.index(last) :]
    if last and last not in {run["metadata"]["name"] for run in workflows}:  # Argo or somebody has deleted it
        entries = before.get("runs", ())
        known = [run for run in entries if run["name"] == last]
        began = [str(run.get("startedAt") or "") for run in entries]
        # One that never began was after all of these; one whose entry is forgotten before them.
        since = str(known[-1].get("startedAt") or max(began)) if known else next(iter(began), "")
        return [run for run in told if run["metadata"]["creationTimestamp"] > since]
    if not last and (mark := started(workspace)):  # KAITO's CRD keeps no name of a run; the mark is of the newest
        told = [run for run in told if not has_ended(run) or is_scheduled(run) or revision_of(run) == mark]
    return told


def revision_of(run: Object) -> str:
    """Return the revision that a Workflow was made of, empty where it does not say."""
    return str((run["metadata"].get("labels") or {}).get(REVISION_LABEL, ""))


def _is_news(run: Object) -> bool:
    """Whether the run is one that the Workspace has asked for, or one of the schedule that has found something new."""
    if not is_scheduled(run):
        return True
    steps = {step.name: step for step in read_steps(run)}
    changed = output(steps, "fetch", "changed")
    return changed == "true" or (changed != "false" and has_ended(run))


def _with_run(
    before: Status, run: Object, workspace: Object, intent: Intent | Refusal, training: Mapping[str, Any] | None,
    now: str, attempts: Mapping[str, Any] | None,
) -> Status:  # fmt: skip
    """Return the status with a run that came after what it tells of."""
    status = mirror(before, run, training, _generation(run, workspace, intent), now, attempts)
    if is_unreadable(run):
        status = _without_steps(before, status, run)
    if is_scheduled(run) and before.get("state") in ("Ready", "Succeeded"):
        return _still_serving(before, status, OF_SERVING, CONDITIONS_OF_SERVING)
    if before.get("endpoint") and not (isinstance(intent, Intent) and not intent.serves):
        return _still_serving(before, status, OF_SERVER, CONDITIONS_OF_SERVER)
    return status


def _generation(run: Object, workspace: Object, intent: Intent | Refusal) -> int:
    """Return the Workspace's generation that a run's conditions are of; ``kubectl wait`` goes by it.

    Where what is asked for now has been started, or is the same, it is today's; else that which the run was made for.
    """
    today: int = workspace["metadata"]["generation"]
    if isinstance(intent, Intent) and started(workspace) == intent.revision:
        return today
    asked = (run["metadata"].get("labels") or {}).get(GENERATION_LABEL, "").partition(".")[0]
    if asked.isascii() and asked.isdecimal():
        return min(int(asked), today)
    return int(condition(workspace, "Finished").get("observedGeneration", today))


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


def _without_run(workspace: Object, intent: Intent | Refusal, now: str) -> Status:
    """Return the status where no Workflow is there: none yet, or Argo or somebody has deleted it."""
    before: Status = workspace.get("status") or {}
    if not before.get("workflow") and not (started(workspace) and before.get("state")):
        return {**before, "state": "Pending"}
    if not went_on(workspace):
        if not (isinstance(intent, Intent) and started(workspace) == intent.revision):
            return before
        today = {"observedGeneration": workspace["metadata"]["generation"]}  # what is asked for now has been done
        return {**before, "conditions": [{**c, **today} for c in before.get("conditions", ())]}
    ended: Condition = ("Finished", "True", "RunDeleted", "the Workflow has been deleted")
    generation = workspace["metadata"]["generation"]
    if before.get("state") not in ("Pending", "Running"):  # an earlier model serves: only its run's steps go
        plain = {key: value for key, value in before.items() if key not in ("steps", "step", "progress")}
        return _with_conditions(plain, [ended], before, generation, now)
    conditions = [("WorkspaceSucceeded", "False", "RunDeleted", _DELETED), ended]
    return _with_conditions({**before, "state": "Failed"}, conditions, before, generation, now)


def went_on(workspace: Object) -> bool:
    """Whether the run that the status tells of had not ended when it was looked at last."""
    status = workspace.get("status") or {}
    return status.get("state") in ("Pending", "Running") or condition(workspace, "Finished").get("status") == "False"


_DELETED = (
    "The Workflow was deleted before it had ended. To run it again change the annotation kaiflow.dev/run-again:"
    " finished steps are reused."
)


def _planned(intent: Intent | Refusal) -> Condition:
    if isinstance(intent, Refusal):
        return "Planned", "False", intent.reason, intent.message
    return "Planned", "True", "Planned", f"revision {intent.revision} is planned"


def _last_run(status: Status) -> list[Condition]:
    """Return whether the newest run that has ended was good: beside a model that serves, the state does not say it."""
    runs = [run for run in status.get("runs") or () if run["phase"] in ENDED]
    if not runs:
        return []
    good = runs[-1]["phase"] == "Succeeded"
    reason = runs[-1].get("reason") or ("RunSucceeded" if good else "RunFailed")
    return [("LastRunSucceeded", str(good), reason, f"{runs[-1]['name']} ended {runs[-1]['phase']}")]


def _with_conditions(status: Status, wanted: Sequence[Condition], before: Status, generation: int, now: str) -> Status:
    others = [c for c in status.get("conditions", ()) if c["type"] not in {kind for kind, *_ in wanted}]
    was = {c["type"]: c for c in before.get("conditions", ())}
    settled = [  # what several runs did to it since the last look is one change, or none
        {**c, "lastTransitionTime": was[c["type"]]["lastTransitionTime"]}
        if c["type"] in was and was[c["type"]]["status"] == c["status"] else c
        for c in others
    ]  # fmt: skip
    return {**status, "conditions": [*settled, *stamped(wanted, before, generation, now)]}
