"""What gives back a node that its run cannot give back, or that went away under it: observed → actions.  Pure.

Argo runs no exit handler of a Workflow that is terminated or deleted; a server that goes leaves its node; a training
whose node went away waits for one of a name that nobody makes again.
"""

from collections.abc import Iterator
from itertools import takewhile

from controller.actions import Action, Again, DeleteRun, ReleaseRun, StopRun, Tell
from controller.cluster_status import went_on
from controller.durations import parse
from controller.events import Told
from controller.intent import Intent, started
from controller.node_holding import asked_for_node, holds_node, is_made_for, lost_node_since, unfound_node_since
from controller.observed import Observed, is_served
from controller.observed_steps import ENDED
from controller.observed_workflow import has_ended
from controller.revisions import forget
from controller.runs import is_scheduled
from pipelines.names import release_name

NODE_SECONDS = 900.0  # for an autoscaler to bring a node back
FRUITLESS_RUNS = 3  # of a revision, one after another: then a node that is not found is no accident


def given_back(seen: Observed) -> Iterator[Action]:
    """Yield what gives back the nodes of runs that ended without their exit handlers: terminated, or deleted."""
    if not (seen.argo and seen.makes_nodes and is_served(seen)):
        return
    left = {
        run["metadata"]["name"]: str(run["status"].get("finishedAt") or "")
        for run in seen.workflows if has_ended(run) and holds_node(run)
    }  # fmt: skip
    status = seen.workspace.get("status") or {}
    last = status.get("workflow")
    gone = last and went_on(seen.workspace) and last not in {run["metadata"]["name"] for run in seen.workflows}
    if gone and asked_for_node(status):
        began = (str(run.get("startedAt") or "") for run in status.get("runs", ()) if run["name"] == last)
        left[last] = max(began, default="")
    if isinstance(seen.intent, Intent) and started(seen.workspace) != seen.intent.revision:
        left.pop(seen.intent.run, None)  # it is run anew under its name, and goes on with its node
    for name, ended in left.items():
        asked = ReleaseRun(name, ended, gone=bool(gone) and name == last)
        for action in _asked_once(asked, seen):
            yield action
            if action is asked:
                why = f"{name} ended without its exit handler: its node is given back."
                yield Tell(Told("NodeReleased", why), when="done")


def lost(seen: Observed, now: str) -> Iterator[Action]:
    """Yield what ends a run whose node went away for good: Argo waits for it, and nobody makes it again."""
    runs = (seen.workspace.get("status") or {}).get("runs") or ()
    for run in seen.workflows if seen.makes_nodes and is_served(seen) else ():
        if has_ended(run) or run["spec"].get("shutdown"):
            continue
        ended = [r["phase"] for r in runs if r["name"] == run["metadata"]["name"] and r["phase"] in ENDED]
        fruitless = len(list(takewhile(lambda phase: phase != "Succeeded", reversed(ended))))
        since = lost_node_since(run) or (unfound_node_since(run) if fruitless < FRUITLESS_RUNS else "")
        if not since:
            continue
        if (parse(now) - parse(since)).total_seconds() < NODE_SECONDS:
            yield Again(NODE_SECONDS / 5)
            continue
        name = run["metadata"]["name"]
        scheduled = is_scheduled(run)
        how = "The next run goes" if scheduled else "It is run again, and goes"
        yield Tell(Told("NodeLost", f"The node of {name} went away. {how} on from the checkpoint."))
        if not scheduled:
            yield from forget(seen.workspace)
        yield StopRun(name)


def node_of_server(seen: Observed) -> Iterator[Action]:
    """Yield what gives back the node of a server that goes: the next run may end before it would see to it."""
    status = seen.workspace.get("status") or {}
    served = [run for run in status.get("runs") or () if run["phase"] == "Succeeded" and run.get("digest")]
    if not (seen.makes_nodes and status.get("endpoint") and served):
        return
    asked = ReleaseRun(served[-1]["name"], str(served[-1].get("finishedAt") or ""))
    yield from _asked_once(asked, seen, or_later=True)


def _asked_once(asked: ReleaseRun, seen: Observed, *, or_later: bool = False) -> Iterator[Action]:
    """Yield the release, once; where one is there of another end of that name, what makes room for it."""
    there = seen.releases.get(release_name(asked.name))
    if there is None:
        yield asked
    elif not is_made_for(there, asked.ended, or_later=or_later):
        yield DeleteRun(there["metadata"]["name"], there["metadata"]["uid"])
