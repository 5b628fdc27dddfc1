"""What is to be done so that the cluster is as a Workspace asks: observed → actions.  Pure.

Level-triggered: what was done before is read off the cluster, never remembered here, so that a controller that was
killed anywhere goes on where it was. The memory is on the objects: the Workspace's annotation ``hash`` names the
revision whose run was started, and the Workflow's label ``asked`` the very wish that it was started for. Hence a
Workflow that somebody deletes stays deleted, and one of the same revision from long ago is replaced when the
Workspace returns to it.
"""

from collections.abc import Iterator, Sequence

from controller.actions import (
    FINALIZER,
    Action,
    AddFinalizer,
    Again,
    ApplyCron,
    CreateCleanup,
    CreateRun,
    DeleteCron,
    DeleteRun,
    DeleteServing,
    Remember,
    RemoveFinalizer,
    StopRun,
    SuspendCron,
    Tell,
    WriteStatus,
)
from controller.cluster_status import REVISION_LABEL, cluster_status, revision_of
from controller.compiling import GENERATION_LABEL, OFFER_LABEL
from controller.durations import parse
from controller.events import Told, changes
from controller.giving_back import given_back, lost, node_of_server
from controller.intent import Intent, started, was_run
from controller.kube_api import Object
from controller.observed import Observed, is_served
from controller.observed_workflow import has_ended
from controller.revisions import forget, revision_number
from controller.runs import is_scheduled

STOPPING_SECONDS = 5.0  # until a run that was told to stop is looked at again
RIGHTS_SECONDS = 120  # within which rights that are only being replaced come back
PATIENCE_SECONDS = 1800  # of a deletion: then it goes on without what does not answer


def reconcile(seen: Observed, now: str) -> list[Action]:
    """Return what is to be done, in order; nothing when all is as it should be."""
    metadata = seen.workspace["metadata"]
    if metadata.get("deletionTimestamp"):
        return list(_leaving(seen, now)) if FINALIZER in metadata.get("finalizers", ()) else []
    if FINALIZER not in metadata.get("finalizers", ()):
        return [AddFinalizer()]  # before anything outside is made; the change brings us back
    actions: list[Action] = []
    if isinstance(seen.intent, Intent):
        actions += _run(seen, seen.intent)
        actions += _schedule(seen, seen.intent)
    actions += given_back(seen)
    actions += lost(seen, now)
    actions += _status(seen, now)
    return actions


def _run(seen: Observed, intent: Intent) -> Iterator[Action]:
    """Yield what starts the run of this revision, once, after those of others have ended."""
    if not seen.argo:
        yield Tell(Told("ArgoMissing", "The cluster knows no Argo Workflows: nothing runs until it is installed."))
        yield Again(60)
        return
    others = list(_in_the_way(seen, intent))
    if started(seen.workspace) == intent.revision and not others:
        return
    in_the_way = [run["metadata"] for run in seen.strangers if run["metadata"]["name"] == intent.run]
    if in_the_way:
        yield DeleteRun(intent.run, in_the_way[0]["uid"])
        return
    if others:
        yield from forget(seen.workspace)
        yield from _stop(others, intent)
        return
    known = next((run for run in seen.workflows if run["metadata"]["name"] == intent.run), None)
    if known is None:
        yield from _begin(seen, intent)
    elif _is_stale(known, seen, intent):
        yield DeleteRun(intent.run, known["metadata"]["uid"])
    else:
        yield Remember(intent.revision, revision_number(seen.workspace, intent.revision))


def _begin(seen: Observed, intent: Intent) -> Iterator[Action]:
    """Yield what starts the run; where it serves nothing, after what was served is gone, and its node asked back."""
    if not intent.serves:
        yield from forget(seen.workspace)
        yield DeleteServing()
        if releasing := list(node_of_server(seen)):
            yield from (*releasing, Again(STOPPING_SECONDS))
            return
    yield CreateRun()


def _stop(others: Sequence[Object], intent: Intent) -> Iterator[Action]:
    for run in others:
        if not run["spec"].get("shutdown"):
            name = run["metadata"]["name"]
            yield StopRun(name)
            yield Tell(Told("RunStopping", f"{name} is stopped: revision {intent.revision} is asked for."), when="done")
    yield Again(STOPPING_SECONDS)


def _is_stale(known: Object, seen: Observed, intent: Intent) -> bool:
    """Whether the Workflow of this name is of long ago: of another wish, stopped for one, or before another's run."""
    if known["metadata"]["labels"].get(GENERATION_LABEL) != intent.asked or known["spec"].get("shutdown"):
        return True
    began = known["metadata"]["creationTimestamp"]
    later = (run for run in seen.workflows if run["metadata"]["creationTimestamp"] > began)
    there = {run["metadata"]["name"] for run in seen.workflows}
    removed = (  # by Argo, since
        run for run in (seen.workspace.get("status") or {}).get("runs") or ()
        if run.get("revision") != intent.revision and not run.get("scheduled") and run["name"] not in there
    )  # fmt: skip
    return any(not is_scheduled(run) for run in later) or any(str(r.get("startedAt") or "") > began for r in removed)


def _in_the_way(seen: Observed, intent: Intent) -> Iterator[Object]:
    """Yield the runs that go on and must end first: of another wish, or stopped for one.

    Where what is asked for has been started, only one that a controller has made since and did not come to note.
    """
    going = [run for run in seen.workflows if not has_ended(run)]
    if started(seen.workspace) != intent.revision:
        yield from (run for run in going if not _is_of(run, intent) or run["spec"].get("shutdown"))
        return
    since = max(_begun(seen, intent.revision), default="")
    for run in going:
        made = run["metadata"]["name"].endswith(f"-{revision_of(run)}")  # not out of Argo's UI
        later = run["metadata"]["creationTimestamp"] > since > ""
        if made and later and not is_scheduled(run) and revision_of(run) != intent.revision:
            yield run


def _begun(seen: Observed, revision: str) -> Iterator[str]:
    """Yield when runs of the revision began, those that Argo has removed too."""
    yield from (run["metadata"]["creationTimestamp"] for run in seen.workflows if revision_of(run) == revision)
    runs = (seen.workspace.get("status") or {}).get("runs") or ()
    yield from (str(run.get("startedAt") or "") for run in runs if run.get("revision") == revision)


def _is_of(run: Object, intent: Intent) -> bool:
    """Whether the run is the one that is asked for, or its schedule's."""
    labels = run["metadata"].get("labels") or {}
    return revision_of(run) == intent.revision and labels.get(GENERATION_LABEL, intent.asked) == intent.asked


def _schedule(seen: Observed, intent: Intent) -> Iterator[Action]:
    if not seen.argo:
        return
    if intent.scheduled:
        labels = seen.cron["metadata"].get("labels") or {} if seen.cron else {}
        made_of = (labels.get(REVISION_LABEL), labels.get(OFFER_LABEL), labels.get(GENERATION_LABEL))
        if made_of != (intent.revision, seen.offered, intent.asked):
            yield ApplyCron()
            yield Tell(Told("ScheduleSet", f"The schedule runs revision {intent.revision}."), when="done")
        elif seen.cron and seen.cron.get("refused"):
            yield Tell(Told("ScheduleRefused", f"Argo does not run the schedule: {seen.cron['refused']['message']}"))
    elif seen.cron is not None:
        yield from _unschedule(seen, seen.cron)


def _unschedule(seen: Observed, cron: Object) -> Iterator[Action]:
    """Yield what ends the schedule: after its run, which it owns and which would go with it, node and all."""
    if any(is_scheduled(run) and not has_ended(run) for run in seen.workflows):
        if not cron.get("suspended"):
            yield SuspendCron(cron["metadata"]["name"])
        return
    yield DeleteCron(cron["metadata"]["name"])
    yield Tell(Told("ScheduleRemoved", "The Workspace has no schedule any more."), when="done")


def _status(seen: Observed, now: str) -> Iterator[Action]:
    before = seen.workspace.get("status") or {}
    if not seen.argo and (before.get("workflow") or started(seen.workspace)):
        return  # what cannot be seen now is not therefore gone
    after = cluster_status(seen.workspace, seen.intent, seen.workflows, seen.training, now, seen.attempts)
    if after != before:
        for told in changes(before, after):
            yield Tell(told, when="written")
        yield WriteStatus(after)


def _leaving(seen: Observed, now: str) -> Iterator[Action]:
    """Yield what gives back all that was taken, then lets the Workspace go."""
    name = seen.workspace["metadata"]["name"]
    waited = (parse(now) - parse(seen.workspace["metadata"]["deletionTimestamp"])).total_seconds()
    served = is_served(seen)
    if seen.cron is not None and served:
        yield DeleteCron(seen.cron["metadata"]["name"])
    running = [run for run in seen.workflows if not has_ended(run)]
    unasked = [run["metadata"]["name"] for run in running if served and not run["spec"].get("shutdown")]
    if unasked or (running and waited <= PATIENCE_SECONDS):
        for run_name in unasked:
            yield StopRun(run_name)
        yield Again(STOPPING_SECONDS)
        return
    yield DeleteServing()
    took = bool(seen.makes_nodes and (seen.workflows or was_run(seen.workspace)))
    makes = seen.argo and served
    if took and not served and waited <= RIGHTS_SECONDS:
        yield Again(STOPPING_SECONDS)
        return
    if took and makes and _cleanup_is_worth_waiting_for(seen.cleanup, waited, now):
        if seen.cleanup is None:
            yield CreateCleanup()
        yield Again(STOPPING_SECONDS)
        return
    if took and makes and seen.cleanup is None:  # nobody was there to wait for it: it goes on without us
        yield CreateCleanup(last=True)
    phase = ((seen.cleanup or {}).get("status") or {}).get("phase")
    if took and phase != "Succeeded":
        yield Tell(
            Told(
                "NodesMayRemain",
                f"Nodes of {name} may be left: kaiflow nodes --orphans (of AKS: --provisioner aks --aks …).",
            )
        )
    yield RemoveFinalizer()


def _cleanup_is_worth_waiting_for(cleanup: Object | None, waited: float, now: str) -> bool:
    """Whether nodes may still be given back: it has not been made, for twice our patience, or it has not ended."""
    if cleanup is None:
        return waited <= 2 * PATIENCE_SECONDS
    began = parse(cleanup["metadata"]["creationTimestamp"])
    return not has_ended(cleanup) and (parse(now) - began).total_seconds() <= PATIENCE_SECONDS
