"""The status on a cluster: what serves beside a run, runs that found nothing new, what is told as Events."""

from dataclasses import replace

from controller.cluster_status import cluster_status
from controller.events import KINDS, Told, changes, event_body
from controller.failure import explain
from controller.intent import HASH, Intent, Refusal
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


def scheduled(name, phase="Running", **phases):
    """A run of the schedule that has found new rows, where its fetch has ended."""
    looks = phases.setdefault("fetch", "Succeeded") != "Succeeded"
    return run(name, phase, True, "2026-11-25T09:30:00Z", {} if looks else {"fetch": {"changed": "true"}}, **phases)


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
    second = scheduled("ws-2", tune="Running")
    found = status([FIRST, second], ready)
    assert (found["state"], found["endpoint"], found["output"]["digest"]) == ("Ready", "http://ws", "sha256:1")
    assert found["step"] == "tune"
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


def without_runs(found):
    return {k: v for k, v in found.items() if k not in ("runs", "conditions")}


def test_while_such_a_run_looks_or_waits_for_another_nothing_is_different_but_its_entry():
    ready = status([FIRST])
    for looking in (scheduled("ws-2", "Pending", fetch="Pending"), scheduled("ws-2", fetch="Running")):
        for before, first in ((ready, [FIRST]), (status([], ready), [])):  # Argo has removed it, too
            during = status([*first, looking], before)
            assert without_runs(during) == without_runs(ready)
            assert conditions(during)["Finished"] == ("True", "RunSucceeded")
            assert [r["phase"] for r in during["runs"]] == ["Succeeded", looking["status"]["phase"]]


def test_a_run_that_found_nothing_new_leaves_what_outlived_its_workflow():
    without = replace(INTENT, serves=False)
    tasks = {**GOOD, "deploy": {}}
    tuned = run("ws-aaaa", "Succeeded", outputs=tasks, deploy="Omitted")
    done = status([tuned], None, without)
    alone = status([], done, without)
    during = status([scheduled("ws-2", fetch="Running")], alone, without)
    skipped = dict.fromkeys(("provision", "weights", "tune", "push", "deploy"), "Omitted")
    nothing = run("ws-2", "Succeeded", True, "2026-11-25T09:30:00Z", {"fetch": {"changed": "false"}}, **skipped)
    for found in (during, status([nothing], during, without), status([], status([nothing], during, without), without)):
        assert without_runs(found) == without_runs(done)
        assert found["state"] == "Succeeded"


def test_what_serves_is_told_though_the_next_run_began_in_the_same_moment():
    working = status([run("ws-aaaa", tune="Running")])
    second = scheduled("ws-2", tune="Running")
    found = status([FIRST, second], working)
    assert (found["state"], found["endpoint"]) == ("Ready", "http://ws")
    failed = scheduled("ws-2", "Failed", tune="Failed")
    found = status([FIRST, failed], working)
    assert (found["state"], found["endpoint"]) == ("Ready", "http://ws")
    assert conditions(found)["LastRunSucceeded"][0] == "False"
    again = cluster_status(workspace(found), INTENT, [FIRST, failed], None, "2026-11-26T00:00:00Z")
    assert again == found  # it is not written again


def asked(name, generation, **kept):
    """A run that was made for a generation of the Workspace."""
    made = run(name, "Succeeded", outputs=GOOD, **kept)
    made["metadata"]["labels"] |= {"kaiflow.dev/asked": f"{generation}.77"}
    return made


def test_an_old_success_is_none_of_what_is_asked_for_now():
    """``kubectl wait`` takes a condition for news when its observedGeneration is today's."""
    first = asked("ws-aaaa", 1)
    for intent in (replace(INTENT, revision="bbbb", run="ws-bbbb", asked="2.77"), Refusal("X", "It is wrong.")):
        found = status([first], status([first]), intent)
        generations = {c["type"]: c["observedGeneration"] for c in found["conditions"]}
        assert (generations["Finished"], generations["WorkspaceSucceeded"], generations["Planned"]) == (1, 1, 2)
        assert found["observedGeneration"] == 2
    body = workspace(status([first]))
    body["metadata"]["annotations"] = {HASH: INTENT.revision}  # the change asks for nothing else
    same = cluster_status(body, INTENT, [first], None, NOW)
    assert {c["observedGeneration"] for c in same["conditions"]} == {2}


def test_a_refusal_beside_a_run_does_not_hide_what_serves():
    ready = status([FIRST])
    workflows = [FIRST, run("ws-bbbb", started="2026-11-25T11:00:00Z", fetch="Running")]
    moving = status(workflows, ready)
    assert status(workflows, moving, Refusal("ConfigMapNotFound", "It is not there."))["endpoint"] == "http://ws"


def of_kaito(found):
    """Return what KAITO's CRD keeps of a status."""
    return {key: found[key] for key in ("state", "conditions") if key in found}


def test_under_kaitos_crd_a_success_outlives_its_workflow_too():
    body = workspace(of_kaito(status([FIRST])))
    body["metadata"]["annotations"] = {HASH: "aaaa"}
    assert cluster_status(body, INTENT, [], None, NOW)["state"] == "Ready"
    old = run("ws-oooo", "Failed", started="2026-11-24T09:00:00Z", fetch="Failed")
    old["metadata"]["labels"]["kaiflow.dev/revision"] = "oooo"
    assert cluster_status(body, INTENT, [old], None, NOW)["state"] == "Ready"
    working = workspace(of_kaito(status([run("ws-aaaa", tune="Running")])))
    working["metadata"]["annotations"] = {HASH: "aaaa"}
    assert cluster_status(working, INTENT, [], None, NOW)["state"] == "Failed"  # it was deleted


def test_what_such_a_run_showed_while_it_looked_gives_way_to_the_run_before():
    """An older kaiflow has shown it."""
    ready = status([FIRST])
    during = {**ready, "workflow": "ws-2"}
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


def test_a_run_that_is_long_gone_and_forgotten_does_not_give_way_to_an_older_failure():
    """Ten runs are kept: those of an hourly schedule push out the entry of the run that serves."""
    old = run("ws-0000", "Failed", started="2026-11-20T09:00:00Z")
    kept = [{"name": f"ws-{n}", "phase": "Succeeded", "startedAt": f"2026-11-24T0{n}:00:00Z"} for n in range(10)]
    before = {"state": "Ready", "workflow": "ws-aaaa", "endpoint": "http://ws", "runs": kept}
    found = status([old], before)
    assert (found["state"], found["workflow"], found["endpoint"]) == ("Ready", "ws-aaaa", "http://ws")


def test_a_failed_run_of_the_schedule_leaves_an_image_that_is_not_served_as_it_was():
    tasks = {k: v for k, v in GOOD.items() if k != "deploy"}
    first = run("ws-aaaa", "Succeeded", outputs=tasks, deploy="Skipped")
    before = status([first])
    assert before["state"] == "Succeeded"
    after = status([first, scheduled("ws-2", "Failed", fetch="Failed")], before)
    assert (after["state"], after["output"]) == ("Succeeded", before["output"])
    assert conditions(after)["LastRunSucceeded"][0] == "False"


def test_a_deleted_run_of_the_schedule_is_over_and_what_serves_goes_on():
    ready = status([FIRST])
    during = status([FIRST, scheduled("ws-2", tune="Running", provision="Succeeded")], ready)
    assert conditions(during)["Finished"][0] == "False"
    after = status([], during)
    assert (after["state"], after["endpoint"]) == ("Ready", "http://ws")
    assert conditions(after)["Finished"] == ("True", "RunDeleted")
    assert "step" not in after
    (entry,) = [entry for entry in after["runs"] if entry["name"] == "ws-2"]
    assert (entry["phase"], entry["reason"], entry["finishedAt"]) == ("Failed", "RunDeleted", NOW)
    assert status([], after) == after


def test_whether_the_last_run_was_good_is_told_while_the_next_goes_on():
    ready = status([FIRST])
    during = status([FIRST, scheduled("ws-2", fetch="Running")], ready)
    assert conditions(during)["LastRunSucceeded"] == conditions(ready)["LastRunSucceeded"]


def test_an_exit_handler_that_did_what_a_task_could_not_is_told_in_its_place():
    """Where nothing is served on the node, release is a task too; of a training that failed it is never reached."""
    failed = run("ws-aaaa", "Failed", outputs={k: GOOD[k] for k in ("provision", "onExit")}, tune="Failed",
                 provision="Succeeded", onExit="Succeeded", release="Omitted")  # fmt: skip
    failed["spec"]["templates"][0]["dag"]["tasks"].append({"name": "release"})
    failed["status"]["nodes"][node_id("ws-aaaa", "ws-aaaa.release")] = {"phase": "Omitted"}
    found = status([failed])
    assert found["steps"][-1]["phase"] == "Succeeded"
    assert found["cost"]["nodeSeconds"] == found["runs"][-1]["nodeSeconds"] == 3600
    assert found["runs"][-1]["usd"] == found["cost"]["usd"]


def test_a_remedy_is_one_for_the_step_that_needs_it():
    tune, fetch = (explain(step, "OOMKilled (exit code 137)").fix for step in ("tune", "fetch"))
    assert "max_length" in tune
    assert "max_length" not in fetch
    assert "max-hours" not in explain("fetch", "Pod was active on the node longer than the specified deadline").fix


def test_a_node_that_was_given_costs_nothing():
    given = run("ws-aaaa", "Succeeded", outputs=GOOD)
    given["metadata"]["labels"]["kaiflow.dev/provisioner"] = "byo"
    assert "cost" not in status([given])


def test_a_run_that_was_deleted_before_it_began_is_no_success_of_the_one_before():
    ready = status([FIRST])
    waiting = run("ws-bbbb", "Pending", started="")
    waiting["metadata"] |= {"creationTimestamp": "2026-11-25T10:30:00Z", "labels": {"kaiflow.dev/revision": "bbbb"}}
    waiting["status"].pop("startedAt")
    found = status([FIRST], status([FIRST, waiting], ready))
    assert conditions(found)["Finished"] == ("True", "RunDeleted")
    assert conditions(found)["LastRunSucceeded"] == ("False", "RunDeleted")


def test_a_run_that_was_deleted_is_told_as_gone_though_what_is_asked_for_now_is_refused():
    going = status([run("ws-aaaa", "Running")])
    found = status([], going, Refusal("ConfigMissing", "There is no ConfigMap."))
    assert (found["state"], conditions(found)["Finished"]) == ("Failed", ("True", "RunDeleted"))
    assert conditions(found)["Planned"] == ("False", "ConfigMissing")


def test_what_has_been_done_already_is_told_of_todays_generation_though_its_workflow_is_gone():
    """Kubectl wait, and whoever follows, ask for today's: a change of the schedule alone runs nothing."""
    ready = status([FIRST])
    body = workspace(ready)
    body["metadata"] |= {"generation": 3, "annotations": {HASH: INTENT.revision}}
    found = cluster_status(body, INTENT, [], None, NOW)
    assert {c["observedGeneration"] for c in found["conditions"]} == {3}
    assert cluster_status({**body, "status": found}, INTENT, [], None, NOW) == found
