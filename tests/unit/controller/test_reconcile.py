"""What is to be done, from what is seen: literal objects in, actions out."""

from dataclasses import replace

import pytest

from controller import actions as r
from controller.giving_back import NODE_SECONDS
from controller.intent import HASH, MARKED, NOT_SERVED, REVISION, Intent, Refusal
from controller.observed import Observed
from controller.reconcile import STOPPING_SECONDS, reconcile
from controller.revisions import revision_number
from controller.runs import CRON_LABEL
from pipelines.names import CLEANUP_LABEL, end_label
from pipelines.nodes import node_id

NOW = "2026-11-25T10:00:00Z"
LATER = "2026-11-25T10:31:00Z"
INTENT = Intent("aaaa", "ws-aaaa", "3.0", scheduled=False, serves=True, plan_status={})
SCHEDULED = replace(INTENT, scheduled=True)


def workspace(revision="", status=None, deleted=None, finalizer=True):
    metadata = {
        "name": "ws", "namespace": "team", "uid": "u", "generation": 3, "resourceVersion": "1",
        "annotations": {HASH: revision, REVISION: "4"} if revision else {},
        "finalizers": [r.FINALIZER] if finalizer else [],
    }  # fmt: skip
    return {
        "metadata": {**metadata, **({"deletionTimestamp": deleted} if deleted else {})},
        "status": status or {},
    }


def run(name="ws-aaaa", revision="aaaa", asked="3.0", phase="Running", created="2026-11-25T09:00:00Z", **spec):
    return {
        "metadata": {
            "name": name, "namespace": "team", "uid": f"uid-{name}", "creationTimestamp": created,
            "labels": {"kaiflow.dev/revision": revision, "kaiflow.dev/asked": asked},
        },
        "spec": {"templates": [], "onExit": "", "shutdown": "", **spec},
        "status": {"phase": phase, "nodes": {}},
    }  # fmt: skip


def cron(revision="aaaa", offered="offer-1", asked="3.0"):
    labels = {"kaiflow.dev/revision": revision, "kaiflow.dev/offered": offered, "kaiflow.dev/asked": asked}
    return {"metadata": {"name": "ws", "namespace": "team", "labels": labels}}


def of_schedule(phase="Running"):
    made = run("ws-1", phase=phase)
    made["metadata"]["labels"] = {"kaiflow.dev/revision": "aaaa", CRON_LABEL: "ws"}
    return made


def cleanup(phase):
    metadata = {"name": "ws-cleanup", "creationTimestamp": NOW}
    return {"metadata": metadata, "spec": {}, "status": {"phase": phase}}


def seen(body=None, **changes):
    defaults = {
        "workspace": body or workspace(), "intent": INTENT, "workflows": (), "strangers": (), "cron": None,
        "offered": "offer-1", "cleanup": None, "argo": True, "makes_nodes": True, "training": None,
    }  # fmt: skip
    return Observed(**{**defaults, **changes})


def done(observed, now=NOW):
    """Return the actions but for what is told and written."""
    return [a for a in reconcile(observed, now) if not isinstance(a, r.Tell | r.WriteStatus)]


def told(observed, now=NOW):
    return [a.told.reason for a in reconcile(observed, now) if isinstance(a, r.Tell)]


def test_nothing_is_made_before_the_finalizer_is_there():
    assert reconcile(seen(workspace(finalizer=False)), NOW) == [r.AddFinalizer()]


def test_a_new_workspace_gets_its_run_once():
    assert done(seen()) == [r.CreateRun()]
    assert done(seen(workflows=(run(),))) == [r.Remember("aaaa", 1)]
    assert done(seen(workspace("aaaa"), workflows=(run(),))) == []


def test_a_revision_that_serves_nothing_gives_the_servers_node_back_whatever_becomes_of_its_own_run():
    mute = replace(INTENT, serves=False)
    good = {"name": "ws-bbbb", "phase": "Succeeded", "revision": "bbbb", "digest": "sha256:1", "finishedAt": NOW}
    nothing = {"name": "ws-1", "phase": "Succeeded", "reason": "NothingNew", "scheduled": True}
    status = {"endpoint": "http://ws", "runs": [good, nothing], "workflow": "ws-bbbb"}
    observed = seen(workspace("bbbb", status=status), intent=mute)
    first = [r.Remember("", 4), r.DeleteServing()]  # taken back to what was served, it runs again
    assert done(observed) == [*first, r.ReleaseRun("ws-bbbb", NOW), r.Again(STOPPING_SECONDS)]
    assert done(replace(observed, makes_nodes=False)) == [*first, r.CreateRun()]
    assert done(replace(observed, releases=release(NOW, "ws-bbbb"))) == [*first, r.CreateRun()]
    assert done(replace(observed, releases=release("2026-12-01T00:00:00Z", "ws-bbbb"))) == [*first, r.CreateRun()]
    of_another_end = replace(observed, releases=release("2026-11-24T10:00:00Z", "ws-bbbb"))
    assert done(of_another_end) == [
        *first, r.DeleteRun("ws-bbbb-cleanup", "r"), r.Again(STOPPING_SECONDS),
    ]  # fmt: skip


def test_a_word_that_asks_for_a_run_again_counts_though_the_run_between_is_gone():
    """Its annotation makes no generation: the run of long ago looks like that of today's wish."""
    old = run(phase="Failed", created="2026-11-24T09:00:00Z")
    between = {"name": "ws-bbbb", "phase": "Succeeded", "revision": "bbbb", "startedAt": "2026-11-24T10:00:00Z"}
    status = {"workflow": "ws-bbbb", "state": "Ready", "runs": [between]}
    assert done(seen(workspace("bbbb", status=status), workflows=(old,))) == [r.DeleteRun("ws-aaaa", "uid-ws-aaaa")]
    scheduled = {**status, "runs": [{**between, "scheduled": True}]}
    assert done(seen(workspace("bbbb", status=scheduled), workflows=(old,))) == [r.Remember("aaaa", 5)]


def test_a_revision_that_serves_nothing_ends_what_was_served():
    mute = replace(INTENT, serves=False)
    assert done(seen(intent=mute)) == [r.DeleteServing(), r.CreateRun()]
    assert done(seen(workspace("aaaa"), intent=mute, workflows=(run(),))) == []


def test_a_run_that_somebody_deleted_is_not_made_again():
    status = {"workflow": "ws-aaaa", "state": "Running", "steps": [{"name": "provision", "phase": "Pending"}]}
    observed = seen(workspace("aaaa", status=status))
    assert done(observed) == []
    assert "RunDeleted" in told(observed)


def test_another_revision_waits_until_the_run_before_has_ended():
    old = run("ws-bbbb", "bbbb", "2.0")
    assert done(seen(workspace("bbbb"), workflows=(old,))) == [
        r.Remember("", 4), r.StopRun("ws-bbbb"), r.Again(STOPPING_SECONDS),
    ]  # fmt: skip
    stopping = run("ws-bbbb", "bbbb", "2.0", shutdown="Stop")
    assert done(seen(workspace(), workflows=(stopping,))) == [r.Again(STOPPING_SECONDS)]
    ended = run("ws-bbbb", "bbbb", "2.0", phase="Failed")
    assert done(seen(workspace("bbbb"), workflows=(ended,))) == [r.CreateRun()]


@pytest.mark.parametrize("asked", ["1.0", "3.0"], ids=["by the spec", "by an annotation, which is no generation"])
def test_what_is_asked_for_again_while_it_is_being_stopped_is_run_anew(asked):
    forgotten = workspace()  # see the test above
    stopping = run(asked=asked, shutdown="Stop")
    assert done(seen(forgotten, workflows=(stopping,))) == [r.Again(STOPPING_SECONDS)]
    ended = run(asked=asked, shutdown="Stop", phase="Failed")
    assert done(seen(forgotten, workflows=(ended,))) == [r.DeleteRun("ws-aaaa", "uid-ws-aaaa")]
    assert done(seen(forgotten)) == [r.CreateRun()]


def test_a_run_that_was_made_and_never_noted_does_not_go_on_beside_what_is_asked_for():
    """The controller was killed between the two, and the Workspace then taken back to what had been run before."""
    before = run(phase="Succeeded", created="2026-11-25T08:00:00Z")
    stray = run("ws-bbbb", "bbbb", "2.0")
    assert done(seen(workspace("aaaa"), workflows=(before, stray))) == [
        r.Remember("", 4), r.StopRun("ws-bbbb"), r.Again(STOPPING_SECONDS),
    ]  # fmt: skip
    assert done(seen(workspace("aaaa"), workflows=(before, of_schedule()), intent=SCHEDULED, cron=cron())) == []
    retried = run("ws-bbbb", "bbbb", "2.0", created="2026-11-25T07:00:00Z")  # in Argo's UI, and so is the next
    assert done(seen(workspace("aaaa"), workflows=(retried, before))) == []
    submitted = run("ws-bbbb-x7k2p", "bbbb", "2.0")
    assert done(seen(workspace("aaaa"), workflows=(before, submitted))) == []


def with_nodes(phase="Running", tries=(), **phases):
    """Return a run whose tasks have these phases, and its training these attempts: (phase, message, start)."""
    made = run(phase=phase)
    nodes = {node_id("ws-aaaa", f"ws-aaaa.{task}"): {"phase": p} for task, p in phases.items()}
    for number, (how, message, began) in enumerate(tries):
        nodes[f"try-{number}"] = {
            "phase": how, "message": message, "startedAt": began, "nodeFlag": {"retried": True},
        }  # fmt: skip
    nodes[node_id("ws-aaaa", "ws-aaaa.tune")] = {
        "phase": "Running", "children": [f"try-{number}" for number in range(len(tries))],
    }  # fmt: skip
    made["status"]["nodes"] = nodes
    return made


@pytest.mark.parametrize(
    ("phases", "left"),
    [
        ({"provision": "Succeeded"}, True),
        ({"provision": "Failed"}, True),
        ({"provision": "Succeeded", "onExit": "Failed"}, True),
        ({"provision": "Succeeded", "onExit": "Succeeded"}, False),
        ({"provision": "Succeeded", "release": "Succeeded"}, False),
        ({"provision": "Omitted"}, False),
        ({}, False),
    ],
)
def test_a_run_that_ended_without_its_exit_handler_has_its_node_given_back_once(phases, left):
    """Argo runs none of a Workflow that is terminated."""
    ended = with_nodes("Failed", **phases)
    observed = seen(workspace("aaaa"), workflows=(ended,))
    ended["status"]["finishedAt"] = NOW
    assert done(observed) == ([r.ReleaseRun("ws-aaaa", NOW)] if left else [])
    assert done(replace(observed, releases=release(NOW))) == []
    assert done(replace(observed, makes_nodes=False)) == []
    assert done(seen(workspace("aaaa"), workflows=(with_nodes("Running", **phases),))) == []


def release(ended, run="ws-aaaa"):
    """Return what gives back the node of a run that ended then, by the clock of the API server long before."""
    name, labels = f"{run}-cleanup", {CLEANUP_LABEL: end_label(ended)}
    metadata = {"name": name, "uid": "r", "creationTimestamp": "2026-11-25T01:00:00Z", "labels": labels}
    return {name: {"metadata": metadata}}


def test_a_release_of_an_earlier_end_of_that_name_makes_room():
    ended = with_nodes("Failed", provision="Succeeded")
    ended["status"]["finishedAt"] = NOW
    observed = seen(workspace("aaaa"), workflows=(ended,), releases=release("2026-11-24T10:00:00Z"))
    assert done(observed) == [r.DeleteRun("ws-aaaa-cleanup", "r")]
    (of_an_earlier_kaiflow,) = release("").values()
    del of_an_earlier_kaiflow["metadata"]["labels"]
    observed = replace(observed, releases={"ws-aaaa-cleanup": of_an_earlier_kaiflow})
    assert done(observed) == [r.DeleteRun("ws-aaaa-cleanup", "r")]
    of_an_earlier_kaiflow["metadata"]["creationTimestamp"] = LATER
    assert done(observed) == []


def test_what_is_run_anew_under_its_name_goes_on_with_its_node():
    ended = with_nodes("Failed", provision="Succeeded")
    ended["spec"]["shutdown"] = "Stop"
    assert done(seen(workspace(), workflows=(ended,))) == [r.DeleteRun("ws-aaaa", "uid-ws-aaaa")]


def test_a_run_that_was_deleted_has_its_node_given_back():
    held = {"workflow": "ws-aaaa", "state": "Running", "steps": [{"name": "provision", "phase": "Succeeded"}]}
    assert done(seen(workspace("aaaa", status=held))) == [r.ReleaseRun("ws-aaaa", gone=True)]
    assert done(seen(workspace("aaaa", status={**held, "state": "Failed"}))) == []


LOST = ("Error", "pod deleted", "2026-11-25T09:10:00Z")


OTHERS = (
    "2 node(s) didn't match Pod's node affinity/selector. preemption: 0/3 nodes are available: 3 Preemption is not "
    "helpful for scheduling."
)


def waiting(since, why=""):
    return ("Pending", f"Unschedulable: 0/3 nodes are available{why}", since)


DRAINED = ("Failed", "main: Error (exit code 75): Interrupted: a checkpoint saved.", "2026-11-25T09:10:00Z")


@pytest.mark.parametrize("end", [LOST, DRAINED])
def test_a_training_whose_node_went_away_is_run_again_on_another(end):
    since = "2026-11-25T09:40:00Z"
    lost = with_nodes(tries=(end, waiting(since)), provision="Succeeded")
    observed = seen(workspace("aaaa"), workflows=(lost,))
    assert done(observed) == [r.Remember("", 4), r.StopRun("ws-aaaa")]
    assert told(observed)[0] == "NodeLost"
    assert done(observed, now="2026-11-25T09:41:00Z") == [r.Again(NODE_SECONDS / 5)]  # an autoscaler may bring it back
    assert done(replace(observed, makes_nodes=False)) == []


@pytest.mark.parametrize(
    "why",
    [
        "node(s) had untolerated taint {node-role.kubernetes.io/control-plane: }",
        "node(s) were unschedulable",
        "node(s) had taint {node-role.kubernetes.io/master: }, that the pod didn't tolerate",
    ],
)
def test_a_node_that_went_away_before_the_training_began_is_lost_too(why):
    """A spot node, while the weights were still on their way."""
    nobody = waiting("2026-11-25T09:40:00Z", f": 1 {why}, {OTHERS}")
    lost = with_nodes(tries=(nobody,), provision="Succeeded")
    assert done(seen(workspace("aaaa"), workflows=(lost,))) == [r.Remember("", 4), r.StopRun("ws-aaaa")]
    given = with_nodes(tries=(nobody,), provision="Running")
    assert done(seen(workspace("aaaa"), workflows=(given,))) == []
    entry = {"name": "ws-aaaa", "phase": "Failed", "startedAt": "2026-11-25T08:00:00Z", "revision": "aaaa"}
    twice = {"runs": [{**entry, "phase": "Succeeded"}, entry, entry]}
    assert r.StopRun("ws-aaaa") in done(seen(workspace("aaaa", status=twice), workflows=(lost,)))
    ever = {"runs": [entry, entry, entry]}  # it is no accident
    assert done(seen(workspace("aaaa", status=ever), workflows=(lost,))) == []


@pytest.mark.parametrize(
    "tries",
    [
        (waiting("2026-11-25T09:40:00Z"),),  # it has never run: another node would be no better
        *[
            (waiting("2026-11-25T09:40:00Z", f": 1 {why}, {OTHERS}"),)
            for why in (
                "Insufficient memory",
                "node(s) had volume node affinity conflict",
                "Too many pods",
                "node(s) exceed max volume count",
                "node(s) had untolerated taint {node.kubernetes.io/disk-pressure: }",
            )
        ],
        (waiting("2026-11-25T09:10:00Z"), waiting("2026-11-25T09:40:00Z")),
        (LOST, ("Running", "", "2026-11-25T09:40:00Z")),
    ],
)
def test_a_training_that_waits_for_another_reason_is_not_run_again(tries):
    assert done(seen(workspace("aaaa"), workflows=(with_nodes(tries=tries, provision="Succeeded"),))) == []


@pytest.mark.parametrize(
    "known", [run(asked="1.0", phase="Succeeded"), run(phase="Succeeded", created="2026-11-25T08:00:00Z")]
)
def test_a_revision_of_long_ago_is_run_anew(known):
    other = run("ws-bbbb", "bbbb", "2.0", phase="Succeeded", created="2026-11-25T08:30:00Z")
    observed = seen(workspace("bbbb"), workflows=(known, other))
    if known["metadata"]["labels"]["kaiflow.dev/asked"] == "1.0":
        observed = seen(workspace("bbbb"), workflows=(known,))
    assert done(observed) == [r.DeleteRun("ws-aaaa", "uid-ws-aaaa")]


def test_the_workflow_of_an_earlier_workspace_of_this_name_makes_room():
    assert done(seen(strangers=(run(),))) == [r.DeleteRun("ws-aaaa", "uid-ws-aaaa")]
    assert done(seen(strangers=(run("ws-bbbb", "bbbb"),))) == [r.CreateRun()]


def test_a_revision_keeps_its_number():
    runs = [{"name": "x", "phase": "Succeeded", "revision": v} for v in ("cccc", "aaaa", "bbbb")]
    body = workspace("bbbb", status={"runs": runs})
    assert revision_number(body, "aaaa") == 2
    assert revision_number(body, "bbbb") == 4
    assert revision_number(body, "dddd") == 5
    many = [{"name": "x", "phase": "Succeeded", "revision": f"{n:04}"} for n in range(5, 15)]  # ten are kept
    body = workspace("0014", status={"runs": many})
    body["metadata"]["annotations"][REVISION] = "15"
    assert [revision_number(body, v) for v in ("0005", "0013", "0015")] == [6, 14, 16]


def test_a_copy_of_a_workspace_is_run_though_the_marks_came_along():
    body = workspace("aaaa")
    body["metadata"]["annotations"][MARKED] = "the uid of another"
    assert done(seen(body)) == [r.CreateRun()]
    assert revision_number(body, "aaaa") == 1
    body["metadata"]["annotations"][MARKED] = "u"
    assert done(seen(body, workflows=(run(),))) == []


def test_what_is_refused_starts_nothing_and_stops_nothing():
    refusal = Refusal("ConfigMapNotFound", "tuning.config: it is not there.")
    observed = seen(intent=refusal, workflows=(run("ws-bbbb", "bbbb"),))
    assert done(observed) == []
    (written,) = [a for a in reconcile(observed, NOW) if isinstance(a, r.WriteStatus)]
    planned = next(c for c in written.status["conditions"] if c["type"] == "Planned")
    assert (planned["status"], planned["reason"]) == ("False", "ConfigMapNotFound")


def test_without_argo_it_says_so_and_looks_again():
    observed = seen(argo=False)
    assert done(observed) == [r.Again(60)]
    assert told(observed)[0] == "ArgoMissing"


def test_the_schedule_follows_the_revision():
    body = workspace("aaaa")
    assert done(seen(body, intent=SCHEDULED, workflows=(run(),))) == [r.ApplyCron()]
    assert done(seen(body, intent=SCHEDULED, workflows=(run(),), cron=cron())) == []
    assert done(seen(body, intent=SCHEDULED, workflows=(run(),), cron=cron("bbbb"))) == [r.ApplyCron()]
    upgraded = cron(offered="offer-0")  # images of before
    assert done(seen(body, intent=SCHEDULED, workflows=(run(),), cron=upgraded)) == [r.ApplyCron()]
    changed = cron(asked="2.0")  # another time of day
    assert done(seen(body, intent=SCHEDULED, workflows=(run(),), cron=changed)) == [r.ApplyCron()]
    assert done(seen(body, workflows=(run(),), cron=cron())) == [r.DeleteCron("ws")]


def test_a_schedule_goes_after_its_run_which_would_go_with_it():
    body, ended = workspace("aaaa"), run(phase="Succeeded")
    assert done(seen(body, workflows=(ended, of_schedule()), cron=cron())) == [r.SuspendCron("ws")]
    suspended = {**cron(), "suspended": True}
    assert done(seen(body, workflows=(ended, of_schedule()), cron=suspended)) == []
    assert done(seen(body, workflows=(ended, of_schedule("Failed")), cron=suspended)) == [r.DeleteCron("ws")]


def test_leaving_it_stops_the_run_frees_the_nodes_and_goes():
    body = workspace("aaaa", deleted=NOW)
    assert done(seen(body, workflows=(run(),), cron=cron())) == [
        r.DeleteCron("ws"), r.StopRun("ws-aaaa"), r.Again(STOPPING_SECONDS),
    ]  # fmt: skip
    ended = (run(phase="Failed"),)
    assert done(seen(body, workflows=ended)) == [r.DeleteServing(), r.CreateCleanup(), r.Again(STOPPING_SECONDS)]
    assert done(seen(body, workflows=ended, cleanup=cleanup("Running"))) == [
        r.DeleteServing(), r.Again(STOPPING_SECONDS),
    ]  # fmt: skip
    assert done(seen(body, workflows=ended, cleanup=cleanup("Succeeded"))) == [r.DeleteServing(), r.RemoveFinalizer()]
    given = seen(body, workflows=ended, makes_nodes=False)
    assert done(given) == [r.DeleteServing(), r.RemoveFinalizer()]


def test_leaving_works_when_argo_is_gone_or_does_not_answer_and_says_what_may_be_left():
    body = workspace("aaaa", deleted=NOW)
    gone = seen(body, argo=False)
    assert done(gone) == [r.DeleteServing(), r.RemoveFinalizer()]
    assert told(gone) == ["NodesMayRemain"]
    stuck = seen(body, workflows=(run(shutdown="Stop"),))
    assert done(stuck) == [r.Again(STOPPING_SECONDS)]
    assert done(stuck, LATER) == [r.DeleteServing(), r.CreateCleanup(), r.Again(STOPPING_SECONDS)]
    away = "2026-11-25T12:00:00Z"  # no controller was there for two hours: what is asked of Argo now, Argo does
    assert done(seen(body, workflows=(run(phase="Succeeded"),)), away) == [
        r.DeleteServing(), r.CreateCleanup(last=True), r.RemoveFinalizer(),
    ]  # fmt: skip
    unasked = seen(body, workflows=(run(),))  # no controller was there while the patience ran out
    assert done(unasked, LATER) == [r.StopRun("ws-aaaa"), r.Again(STOPPING_SECONDS)]


def test_leaving_gives_nodes_back_though_the_workspace_can_be_planned_no_more():
    refused = seen(
        workspace("aaaa", deleted=NOW), intent=Refusal("ConfigMapNotFound", ""), workflows=(run(phase="Failed"),)
    )
    assert done(refused) == [r.DeleteServing(), r.CreateCleanup(), r.Again(STOPPING_SECONDS)]


def test_runs_that_cannot_be_seen_for_a_moment_are_not_told_to_be_gone():
    body = workspace("aaaa", status={"workflow": "ws-aaaa", "state": "Running"})
    assert not [a for a in reconcile(seen(body, argo=False), NOW) if isinstance(a, r.WriteStatus)]
    of_kaito = workspace("aaaa", status={"state": "Running"})  # whose CRD keeps no name of a run
    assert not [a for a in reconcile(seen(of_kaito, argo=False), NOW) if isinstance(a, r.WriteStatus)]


def test_one_that_leaves_and_is_not_ours_is_let_alone():
    assert reconcile(seen(workspace(deleted=NOW, finalizer=False)), NOW) == []


def test_a_status_that_is_true_is_not_written_again():
    observed = seen(workspace("aaaa"), workflows=(run(tasks=()),))
    (written,) = [a for a in reconcile(observed, NOW) if isinstance(a, r.WriteStatus)]
    again = seen(workspace("aaaa", status=dict(written.status)), workflows=(run(tasks=()),))
    assert reconcile(again, LATER) == []


def test_a_revision_that_somebody_else_has_written_is_none():
    body = workspace()
    body["metadata"]["annotations"] = {REVISION: "r1"}
    assert revision_number(body, "0123456789") == 1


def test_a_schedule_that_argo_refuses_is_told():
    body = workspace("aaaa")
    refused = {**cron(), "refused": {"message": "cron schedule is malformed"}}
    observed = seen(body, intent=SCHEDULED, workflows=(run(),), cron=refused)
    assert "ScheduleRefused" in told(observed)
    assert "ScheduleRefused" not in told(seen(body, intent=SCHEDULED, workflows=(run(),), cron=cron()))


def test_a_workspace_goes_though_its_namespace_is_served_no_more():
    """There nothing may be stopped or made; what goes on goes with the Workspace, and the rest is told."""
    gone = workspace("aaaa", deleted="2026-11-25T09:00:00Z")
    observed = seen(gone, workflows=(run(),), cron=cron(), intent=Refusal(NOT_SERVED, "not here"))
    assert done(observed, "2026-11-25T09:10:00Z") == [r.Again(STOPPING_SECONDS)]
    assert done(observed, "2026-11-25T09:31:00Z") == [r.DeleteServing(), r.RemoveFinalizer()]
    ended = replace(observed, workflows=())
    assert done(ended, "2026-11-25T09:01:00Z") == [r.DeleteServing(), r.Again(STOPPING_SECONDS)]  # rights come back
    assert done(ended, "2026-11-25T09:03:00Z") == [r.DeleteServing(), r.RemoveFinalizer()]
    assert "NodesMayRemain" in told(observed, "2026-11-25T09:31:00Z")


def test_nothing_is_tried_in_a_namespace_that_is_served_no_more():
    held = with_nodes("Failed", provision="Succeeded")
    refusal = Refusal(NOT_SERVED, "not here")
    assert done(seen(workspace("aaaa"), workflows=(held,), intent=refusal)) == []
    lost = with_nodes(tries=(LOST, waiting("2026-11-25T09:40:00Z")), provision="Succeeded")
    assert done(seen(workspace("aaaa"), workflows=(lost,), intent=refusal)) == []
