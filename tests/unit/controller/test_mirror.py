"""Workflow status to Workspace status, as literal dicts."""

import copy
import json

import pytest

from controller.attempts import attempts_in
from controller.failure import explain
from controller.mirror import mirror
from controller.why import shortened
from pipelines.nodes import node_id

TASKS = ("fetch", "provision", "weights", "tune", "push", "deploy")


def workflow(phase="Running", tasks=TASKS, **nodes):
    """A Workflow whose tasks have these phases, or these nodes."""
    body = {
        "metadata": {"name": "wf"},
        "spec": {
            "entrypoint": "run",
            "onExit": "release",
            "templates": [{"name": "run", "dag": {"tasks": [{"name": task, "template": task} for task in tasks]}}],
        },
        "status": {"phase": phase, "startedAt": "2026-11-23T10:00:00Z", "nodes": {}},
    }
    for name, node in nodes.items():
        full = "wf.onExit" if name == "release" else f"wf.{name}"
        fields = {"phase": node} if isinstance(node, str) else node
        body["status"]["nodes"][node_id("wf", full)] = {"name": full, "type": "Pod", **fields}
    return body


def outputs(**values):
    return {"outputs": {"parameters": [{"name": k.replace("_", "-"), "value": v} for k, v in values.items()]}}


def status(body, previous=None, training=None, now="2026-11-23T10:05:00Z"):
    return mirror(previous, body, training, 1, now)


def conditions(body, **options):
    return {c["type"]: (c["status"], c["reason"]) for c in status(body, **options)["conditions"]}


def all_done(**changes):
    done = dict.fromkeys((*TASKS, "release"), "Succeeded")
    return workflow("Succeeded", **{**done, **changes})


def test_nothing_has_started():
    body = workflow("Pending")
    assert status(body)["state"] == "Pending"
    assert conditions(body) == {
        "ResourceReady": ("False", "workspaceResourceStatusNotReady"),
        "JobStarted": ("False", "WorkspaceTuningJobStatusPending"),
        "InferenceReady": ("False", "WorkspaceInferenceStatusPending"),
        "WorkspaceSucceeded": ("False", "workspacePending"),
        "Finished": ("False", "RunInProgress"),
    }


def test_a_run_in_progress():
    body = workflow(
        fetch="Succeeded", provision="Succeeded", weights="Succeeded", tune={"phase": "Running", "progress": "3/40"}
    )
    training = {
        "loss": 3.1, "tokens_per_second": 180.0, "eta_seconds": 70, "trained_steps": 3, "total_steps": 40,
        "step_cut": "1 pack at a time, all layers computed again",
    }  # fmt: skip
    found = status(body, training=training)
    assert (found["state"], found["progress"]) == ("Running", "3/7")
    assert found["training"] == {
        "loss": 3.1, "tokensPerSecond": 180.0, "etaSeconds": 70, "steps": "3/40",
        "stepCut": "1 pack at a time, all layers computed again",
    }  # fmt: skip
    assert conditions(body)["JobStarted"][0] == "True"
    assert [s["phase"] for s in found["steps"]] == ["Succeeded"] * 3 + ["Running"] + ["Pending"] * 3


def test_the_figures_of_a_training_stay_when_its_log_can_be_read_no_more():
    body = workflow(fetch="Succeeded", tune="Running")
    live = status(body, training={"loss": 3.1, "tokens_per_second": 180.0, "eta_seconds": 9})
    for phase in ("Succeeded", "Failed"):
        ended = workflow("Failed", fetch="Succeeded", tune=phase)
        assert status(ended, previous=live)["training"] == {"loss": 3.1, "tokensPerSecond": 180.0}
    assert "training" not in status(body, previous=live)  # it trains anew: what it has logged will be read
    of_another = {**live, "workflow": "another"}
    assert "training" not in status(workflow("Failed", tune="Failed"), previous=of_another)


def test_a_finished_run_carries_its_results():
    body = all_done(
        tune={"phase": "Succeeded", **outputs(base_loss="6.5", tuned_loss="3.2")},
        push={"phase": "Succeeded", **outputs(image="r.io/a:1", digest="sha256:1", verdict="passed")},
        deploy={"phase": "Succeeded", **outputs(endpoint="http://127.0.0.1:1")},
    )
    found = status(body)
    assert found["state"] == "Ready"
    assert found["output"] == {"image": "r.io/a:1", "digest": "sha256:1"}
    assert found["endpoint"] == "http://127.0.0.1:1"
    assert found["training"] == {"baseEvalLoss": 6.5, "evalLoss": 3.2}
    assert {value for value, _ in conditions(body).values()} == {"True"}
    assert found["runs"][0]["gate"] == "passed"


def test_a_run_that_serves_nothing_ends_succeeded():
    tasks = (*TASKS[:-1], "release")
    body = workflow("Succeeded", tasks, **dict.fromkeys(tasks, "Succeeded"))
    assert status(body)["state"] == "Succeeded"
    assert "InferenceReady" not in conditions(body)


def test_a_reused_step_says_so():
    body = workflow(fetch={"phase": "Succeeded", **outputs(cached="true")})
    assert status(body)["steps"][0]["reused"] is True


MESSAGE = "main: Error (exit code 65): RowsInvalid: 2 of 9 rows cannot be trained on. Fix: Mend them."


def test_a_failure_says_which_step_why_and_what_to_do():
    body = workflow("Failed", fetch={"phase": "Failed", "message": MESSAGE}, provision="Omitted", release="Succeeded")
    found = status(body)
    assert found["state"] == "Failed"
    last = {c["type"]: c for c in found["conditions"]}
    assert last["WorkspaceSucceeded"]["reason"] == "workspaceFailed"
    assert last["WorkspaceSucceeded"]["message"] == "fetch: RowsInvalid: 2 of 9 rows cannot be trained on. Mend them."
    assert last["Finished"]["status"] == "True"


def test_a_stopped_neighbour_does_not_hide_the_real_failure():
    stopped = {"phase": "Failed", "message": "main: Error (exit code 143): workflow shutdown with strategy: Terminate"}
    body = workflow("Failed", provision=stopped, weights={"phase": "Failed", "message": MESSAGE})
    assert "RowsInvalid" in next(c for c in status(body)["conditions"] if c["type"] == "WorkspaceSucceeded")["message"]


def test_a_retrying_step_never_makes_the_workspace_failed():
    first, second = node_id("wf", "wf.tune(0)"), node_id("wf", "wf.tune(1)")
    body = workflow(tune={"phase": "Running", "type": "Retry", "children": [first, second]})
    body["status"]["nodes"][first] = {"phase": "Failed", "message": "pod deleted", "nodeFlag": {"retried": True}}
    body["status"]["nodes"][second] = {"phase": "Pending", "message": "Unschedulable", "nodeFlag": {"retried": True}}
    found = status(body)
    tune = next(s for s in found["steps"] if s["name"] == "tune")
    assert (found["state"], tune["phase"], tune["message"]) == ("Running", "Pending", "Unschedulable")


def test_a_step_whose_outputs_have_not_arrived_is_not_done():
    body = workflow(push={"phase": "Succeeded", "taskResultSynced": False})
    assert next(s for s in status(body)["steps"] if s["name"] == "push")["phase"] == "Running"


def test_transition_times_change_only_with_the_status():
    first = status(workflow(fetch="Running"), now="2026-11-23T10:00:00Z")
    body = workflow(fetch="Succeeded", provision="Succeeded")
    second = status(body, previous=first, now="2026-11-23T10:01:00Z")
    times = {c["type"]: c["lastTransitionTime"] for c in second["conditions"]}
    assert times["ResourceReady"] == "2026-11-23T10:01:00Z"
    assert times["JobStarted"] == "2026-11-23T10:00:00Z"


def test_the_mirror_is_a_pure_function():
    body, before = all_done(), status(workflow())
    copies = copy.deepcopy((body, before))
    assert status(body, previous=before) == status(body, previous=before)
    assert (body, before) == copies


def test_runs_are_kept_one_entry_each_newest_last():
    first = all_done()
    again = copy.deepcopy(first)
    again["status"]["startedAt"] = "2026-11-24T10:00:00Z"
    found = status(again, previous=status(first, previous=status(first)))
    assert [run["startedAt"] for run in found["runs"]] == ["2026-11-23T10:00:00Z", "2026-11-24T10:00:00Z"]


@pytest.mark.parametrize(
    ("message", "reason", "cli"),
    [
        (MESSAGE, "RowsInvalid", 3),
        ("main: Error (exit code 65): DatasetNotFound: gone. Fix: Check it.", "DatasetNotFound", 4),
        ("main: Error (exit code 77): ModelForbidden: no. Fix: Set HF_TOKEN.", "ModelForbidden", 4),
        ("main: Error (exit code 75): DatasetUnreachable: x. Fix: y.", "DatasetUnreachable", 1),
        ("main: Error (exit code 78): WeightsNotInstalled: x. Fix: y.", "WeightsNotInstalled", 3),
        ("main: Error (exit code 137)", "Killed", 1),
        ("main: Error (exit code 1)", "StepFailed", 1),
        (
            "main: Error (exit code 143): Pod was active on the node longer than the specified deadline",
            "DeadlineExceeded",
            5,
        ),
        ("main: Error (exit code 143): workflow shutdown with strategy: Terminate", "Stopped", 1),
        ("failed to resolve {{tasks.x}}", "StepFailed", 1),
        ("", "StepFailed", 1),
    ],
)
def test_every_message_of_a_node_is_explained(message, reason, cli):
    failure = explain("fetch", message)
    assert (failure.reason, failure.cli_exit_code) == (reason, cli)
    assert failure.message
    assert failure.fix


LOG = [
    '{"event": "attempt", "attempt": "A100 spot zone 1", "number": 1, "of": 3}',
    '{"event": "waiting", "on": "n0: waits to be launched"}',
    "a library says something",
    '{"event": "refused", "attempt": "A100 spot zone 1", "reason": "QuotaExceeded", "message": "No quota."}',
    '{"event": "attempt", "attempt": "A100 zone 2", "number": 2, "of": 3}',
    '{"event": "waiting", "on": "n1: waits to be ready"}',
]
REFUSED = {"attempt": "A100 spot zone 1", "reason": "QuotaExceeded", "message": "No quota."}


def test_attempts_at_a_node_are_told_while_they_are_made():
    body = workflow(fetch="Succeeded", provision="Running")
    found = mirror(None, body, None, 1, "2026-11-23T10:05:00Z", attempts_in(LOG))
    assert found["provision"] == {"attempt": "A100 zone 2", "waitsFor": "n1: waits to be ready", "refused": [REFUSED]}
    assert "provision" not in mirror(None, body, None, 1, "2026-11-23T10:05:00Z", attempts_in([]))


def test_refused_attempts_stay_when_none_gave_a_node():
    running = workflow(fetch="Succeeded", provision="Running")
    live = mirror(None, running, None, 1, "2026-11-23T10:05:00Z", attempts_in(LOG))
    failed = workflow("Failed", fetch="Succeeded", provision="Failed")
    ended = mirror(live, failed, None, 1, "2026-11-23T10:06:00Z", attempts_in(LOG))
    assert ended["provision"] == {"refused": [REFUSED]}
    assert status(failed, previous=ended)["provision"] == {"refused": [REFUSED]}  # by a controller that read no log
    assert "provision" not in status(failed, previous={**ended, "workflow": "another"})


def test_the_result_of_the_step_stands_above_its_log():
    told = json.dumps([{**REFUSED, "fix": "Ask for more."}])
    body = workflow(provision={"phase": "Succeeded", **outputs(instance_type="A100", attempts=told)})
    found = mirror(None, body, None, 1, "2026-11-23T10:05:00Z", attempts_in(LOG))
    assert found["provision"] == {"instanceType": "A100", "refused": [REFUSED]}


def claimed(body, attempts=None, maker="karpenter"):
    body["metadata"]["labels"] = {"kaiflow.dev/provisioner": maker}
    found = mirror(None, body, None, 1, "2026-11-23T10:05:00Z", attempts)
    return next(
        ((c["status"], c["reason"], c["message"]) for c in found["conditions"] if c["type"] == "NodeClaimReady"), None
    )


def test_the_claim_of_a_node_has_kaitos_condition_where_nodes_are_made():
    waiting = workflow(fetch="Succeeded", provision="Running")
    assert claimed(waiting) == ("False", "NodeClaimNotReady", "Ready NodeClaims are not enough")
    status, reason, message = claimed(waiting, attempts_in(LOG[:2])) or ("", "", "")
    assert message.endswith("A100 spot zone 1: n0: waits to be launched")
    status, reason, message = claimed(waiting, attempts_in(LOG)) or ("", "", "")
    assert (status, reason) == ("False", "QuotaExceeded")
    there = workflow(fetch="Succeeded", provision="Succeeded")
    assert claimed(there, maker="aks") == ("True", "NodeClaimsReady", "Enough NodeClaims are ready")
    refused = workflow("Failed", provision={"phase": "Failed", "message": "QuotaExceeded: No quota. Fix: Ask."})
    assert claimed(refused) == ("False", "QuotaExceeded", "No quota.")
    assert claimed(there, maker="byo") is claimed(there, maker="local") is None


@pytest.mark.parametrize(
    ("phase", "message", "reason"),
    [
        ("Failed", "OOMKilled (exit code 137)", "ContainerOOMKilled"),
        ("Failed", "main: Error (exit code 65): TooManyBadRows: Too many. Fix: Mend them.", "TooManyBadRows"),
        ("Failed", "workflow shutdown with strategy:  Terminate", "Stopped"),
    ],
)
def test_the_entry_of_a_run_that_failed_says_why(phase, message, reason):
    body = workflow("Failed", fetch="Succeeded", tune={"phase": phase, "message": message})
    assert status(body)["runs"][0]["reason"] == reason


def test_of_a_training_that_its_budget_ended_the_steps_are_told_as_they_were():
    early = all_done(tune={"phase": "Succeeded", "progress": "1/1", **outputs(steps="3/400")})
    told = status(early)
    assert next(s for s in told["steps"] if s["name"] == "tune")["progress"] == "3/400"
    assert ["after 3 of 400 steps" in line for line in shortened(told)] == [True]
    whole = all_done(tune={"phase": "Succeeded", **outputs(steps="400/400")})
    assert list(shortened(status(whole))) == []
