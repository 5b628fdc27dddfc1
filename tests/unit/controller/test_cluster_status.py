"""The status on a cluster: what serves beside a run, runs that found nothing new, what is told as Events."""

from dataclasses import replace

from controller.cluster_status import cluster_status
from controller.events import KINDS, Told, changes, event_body
from controller.intent import Intent, Refusal
from controller.runs import CRON_LABEL
from pipelines.nodes import node_id

NOW = "2026-11-25T10:00:00Z"
INTENT = Intent("aaaa", "ws-aaaa", "1.0", scheduled=True, serves=True, plan_status={"machine": {"name": "A100"}})
TASKS = ("fetch", "provision", "weights", "tune", "push", "deploy")


def workspace(status=None):
    return {"metadata": {"name": "ws", "namespace": "n", "uid": "u", "generation": 2}, "status": status or {}}


def run(name, phase="Running", scheduled=False, started="2026-11-25T09:00:00Z", outputs=None, **phases):
    nodes = {}
    for task in (*TASKS, "onExit"):
        told = {"parameters": [{"name": k, "value": v} for k, v in (outputs or {}).get(task, {}).items()]}
        full = f"{name}.{task}"
        state = phases.get(task, "Succeeded" if phase == "Succeeded" else "Pending")
        nodes[node_id(name, full)] = {
            "name": full, "phase": state, "outputs": told, "startedAt": started, "finishedAt": "2026-11-25T10:00:00Z",
        }  # fmt: skip
    return {
        "metadata": {
            "name": name, "namespace": "n", "uid": name, "creationTimestamp": started,
            "labels": {"kaiflow.dev/revision": "aaaa", **({CRON_LABEL: "ws"} if scheduled else {})},
        },
        "spec": {"templates": [{"dag": {"tasks": [{"name": t} for t in TASKS]}}], "onExit": "release"},
        "status": {"phase": phase, "startedAt": started, "finishedAt": NOW, "nodes": nodes},
    }  # fmt: skip


GOOD = {
    "push": {"image": "r/a:1", "digest": "sha256:1", "verdict": "passed"}, "deploy": {"endpoint": "http://ws"},
    "tune": {"base-loss": "2.5", "tuned-loss": "1.5"}, "fetch": {"changed": "true"},
    "provision": {"instance-type": "Standard_NC24ads_A100_v4"}, "onExit": {"released": "kf1 gone"},
}  # fmt: skip
FIRST = run("ws-aaaa", "Succeeded", outputs=GOOD)


def status(workflows, before=None, intent: Intent | Refusal = INTENT):
    return cluster_status(workspace(before), intent, workflows, None, NOW)


def conditions(found):
    return {c["type"]: (c["status"], c["reason"]) for c in found["conditions"]}


def test_before_any_run_it_is_pending_and_planned():
    found = status([])
    assert (found["state"], found["plan"]) == ("Pending", {"machine": {"name": "A100"}})
    assert conditions(found) == {"Planned": ("True", "Planned")}


def test_a_refusal_keeps_what_was_known():
    ready = status([FIRST])
    found = status([FIRST], ready, Refusal("SecretNotFound", "It is not there."))
    assert conditions(found)["Planned"] == ("False", "SecretNotFound")
    assert (found["state"], found["plan"]) == ("Ready", ready["plan"])


def test_a_run_of_the_schedule_takes_nothing_from_what_serves_until_it_has_succeeded():
    ready = status([FIRST])
    second = run("ws-2", scheduled=True, started="2026-11-25T09:30:00Z", fetch="Running")
    found = status([FIRST, second], ready)
    assert (found["state"], found["endpoint"], found["output"]["digest"]) == ("Ready", "http://ws", "sha256:1")
    assert found["step"] == "fetch"
    failed = run("ws-2", "Failed", scheduled=True, started="2026-11-25T09:30:00Z", fetch="Failed")
    found = status([FIRST, failed], found)
    assert (found["state"], conditions(found)["LastRunSucceeded"]) == ("Ready", ("False", "StepFailed"))
    assert conditions(found)["InferenceReady"][0] == "True"
    better = {**GOOD, "push": {**GOOD["push"], "digest": "sha256:2"}}
    third = run("ws-3", "Succeeded", scheduled=True, started="2026-11-25T09:40:00Z", outputs=better)
    found = status([FIRST, failed, third], found)
    assert (found["state"], found["output"]["digest"]) == ("Ready", "sha256:2")
    assert [r["phase"] for r in found["runs"]] == ["Succeeded", "Failed", "Succeeded"]


def test_a_run_that_found_nothing_new_leaves_only_its_entry():
    ready = status([FIRST])
    skipped = dict.fromkeys(("provision", "weights", "tune", "push", "deploy"), "Omitted")
    nothing = run("ws-2", "Succeeded", True, "2026-11-25T09:30:00Z", {"fetch": {"changed": "false"}}, **skipped)
    found = status([FIRST, nothing], ready)
    assert found["runs"][-1]["reason"] == "NothingNew"
    assert {k: v for k, v in found.items() if k not in ("runs", "conditions")} == {
        k: v for k, v in ready.items() if k not in ("runs", "conditions")
    }


def test_what_such_a_run_showed_while_it_looked_gives_way_to_the_run_before():
    ready = status([FIRST])
    looking = run("ws-2", scheduled=True, started="2026-11-25T09:30:00Z", fetch="Running")
    during = status([FIRST, looking], ready)
    assert during["workflow"] == "ws-2"
    skipped = dict.fromkeys(("provision", "weights", "tune", "push", "deploy"), "Omitted")
    nothing = run("ws-2", "Succeeded", True, "2026-11-25T09:30:00Z", {"fetch": {"changed": "false"}}, **skipped)
    found = status([FIRST, nothing], during)
    assert (found["workflow"], found["training"], found["steps"]) == ("ws-aaaa", ready["training"], ready["steps"])


def test_runs_outlive_their_workflows():
    found = status([], status([FIRST]))
    assert (found["state"], [r["name"] for r in found["runs"]]) == ("Ready", ["ws-aaaa"])


def test_the_cost_is_told_once_the_node_is_given_back():
    assert status([FIRST])["cost"] == {"nodeSeconds": 3600, "usd": 3.67}
    kept = run("ws-aaaa", "Succeeded", outputs={**GOOD, "onExit": {"released": "kf1 kept: it serves"}})
    assert "cost" not in status([kept])


def test_of_offloaded_nodes_only_the_phase_is_told():
    away = run("ws-aaaa")
    away["status"] |= {"nodes": {}, "offloadNodeStatusVersion": "fnv:1"}
    found = status([away])
    assert found["state"] == "Running"
    assert "steps" not in found


def test_what_was_known_of_a_run_is_kept_when_its_nodes_are_offloaded():
    ready = status([FIRST])
    away = run("ws-aaaa", "Succeeded")
    away["status"] |= {"nodes": {}, "offloadNodeStatusVersion": "fnv:1", "progress": "7/7"}
    found = status([away], ready)
    kept = ("state", "endpoint", "output", "training")
    assert {key: found[key] for key in kept} == {key: ready[key] for key in kept}
    assert conditions(found) == conditions(ready)
    assert found["progress"] == "7/7"


def test_beside_a_run_of_another_revision_the_server_goes_on():
    ready = status([FIRST])
    for phase, state in (("Running", "Running"), ("Failed", "Failed")):
        found = status([FIRST, run("ws-bbbb", phase, started="2026-11-25T11:00:00Z", fetch=phase)], ready)
        assert (found["state"], found["endpoint"], found["output"]["digest"]) == (state, "http://ws", "sha256:1")
        assert conditions(found)["InferenceReady"] == conditions(ready)["InferenceReady"]
        assert conditions(found)["WorkspaceSucceeded"][0] == "False"


def test_where_nothing_shall_be_served_any_more_the_endpoint_goes():
    without = replace(INTENT, serves=False)
    found = status([FIRST, run("ws-bbbb", started="2026-11-25T11:00:00Z")], status([FIRST]), without)
    assert "endpoint" not in found


def test_whichever_step_waits_it_is_told_once_with_its_remedy():
    waiting = run("ws-aaaa", fetch="Pending")
    node = waiting["status"]["nodes"][node_id("ws-aaaa", "ws-aaaa.fetch")]
    node["message"] = 'ImagePullBackOff: Back-off pulling image "r.example.com/step:1"'
    found = status([waiting])
    assert conditions(found)["WorkspaceSucceeded"] == ("False", "ImagePullError")
    assert [t.reason for t in changes({}, found)].count("StepWaiting") == 1


def test_the_event_of_a_failure_has_its_reason_and_its_remedy():
    failed = run("ws-aaaa", "Failed", tune="Failed")
    failed["status"]["nodes"][node_id("ws-aaaa", "ws-aaaa.tune")]["message"] = "OOMKilled (exit code 137)"
    (told,) = [t for t in changes({}, status([failed])) if t.reason == "RunFailed"]
    assert "ContainerOOMKilled" in told.message


def test_an_event_is_told_of_a_change_and_of_each_change_once():
    pending, running = status([]), status([run("ws-aaaa", tune="Running")])
    ready = status([FIRST], running)
    assert [t.reason for t in changes({}, pending)] == ["Planned"]
    assert [t.reason for t in changes(pending, running)] == ["RunStarted"]
    assert [t.reason for t in changes(running, ready)] == ["RunSucceeded", "Serving"]
    assert list(changes(ready, ready)) == []


def test_a_pod_that_waits_is_told_with_its_remedy():
    waiting = run("ws-aaaa")
    node = waiting["status"]["nodes"][node_id("ws-aaaa", "ws-aaaa.tune")]
    node |= {"phase": "Pending", "message": "Unschedulable: 0/3 nodes are available"}
    found = status([waiting])
    assert conditions(found)["JobStarted"] == ("False", "Unschedulable")
    (told,) = [t for t in changes({}, found) if t.reason == "StepWaiting"]
    assert "kubectl describe pod" in told.message


def test_an_event_has_a_name_of_its_own_and_a_message_that_fits():
    def named(message):
        return event_body(workspace(), Told("RunFailed", message), "kaiflow", NOW)

    assert (
        named("x" * 5000)["metadata"]["name"] == named("x" * 5000)["metadata"]["name"] != named("y")["metadata"]["name"]
    )
    assert (len(named("x" * 5000)["message"]), named("y")["type"]) == (1024, "Warning")
    assert set(KINDS.values()) == {"Normal", "Warning"}


def test_a_run_that_ended_well_is_not_forgotten_for_an_older_one_that_failed_and_outlives_it():
    bad = run("ws-bad", "Failed", started="2026-11-24T09:00:00Z", fetch="Failed")
    ready = status([bad, FIRST])
    kept = status([bad], ready)  # Argo removes what has succeeded after a day, what has failed after a week
    assert (kept["state"], kept["workflow"], kept["endpoint"]) == ("Ready", "ws-aaaa", "http://ws")
