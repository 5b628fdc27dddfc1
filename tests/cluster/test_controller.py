"""The controller on a real API server; the local engine, with canned steps, stands in for Argo's controller."""

import gc
import json
import os
import random
import signal
import subprocess
import threading
import time
from collections import Counter

import pytest
import urllib3

from controller.actions import FINALIZER
from controller.intent import HASH, REVISION
from controller.operator_process import lease_name
from pipelines.nodes import node_id
from tests.cluster.argo import ARGO, Argo
from tests.cluster.cut_proxy import proxied_kubeconfig
from tests.cluster.operator_process import Controller, until

WORKSPACES = "/apis/kaito.sh/v1beta1"
SECRET = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "registry-login"}, "type": "Opaque"}


def workspace(name="ws", **tuning):
    return {
        "apiVersion": "kaito.sh/v1beta1", "kind": "Workspace", "metadata": {"name": name},
        "resource": {"labelSelector": {"matchLabels": {"app": name}}},
        "tuning": {
            "preset": {"name": "smollm2-135m-instruct"}, "method": "qlora",
            "input": {"urls": ["https://data.example.com/a.jsonl"]},
            "output": {"image": f"registry.example.com/team/{name}:1", "imagePushSecret": "registry-login"}, **tuning,
        },
    }  # fmt: skip


class Place:
    """One namespace, with what the tests do in it."""

    def __init__(self, cluster, namespace, argo):
        self.cluster, self.namespace, self.argo = cluster, namespace, argo
        self.workspaces = f"{WORKSPACES}/namespaces/{namespace}/workspaces"

    def apply(self, body):
        return self.cluster.apply(f"{self.workspaces}/{body['metadata']['name']}", body)

    def get(self, name="ws"):
        return self.cluster.get(f"{self.workspaces}/{name}")

    def status(self, name="ws"):
        return (self.get(name) or {}).get("status") or {}

    def condition(self, kind, name="ws"):
        return next((c for c in self.status(name).get("conditions", ()) if c["type"] == kind), {})

    def wait_state(self, state, name="ws", seconds=40.0):
        until(lambda: self.status(name).get("state") == state, seconds)
        return self.status(name)

    def events(self):
        path = f"/api/v1/namespaces/{self.namespace}/events"
        return [e["reason"] for e in self.cluster.list(path) if e["involvedObject"]["kind"] == "Workspace"]

    def delete(self, name="ws"):
        self.cluster.delete(f"{self.workspaces}/{name}")


@pytest.fixture
def place(cluster, kinds, tmp_path, request):
    namespace = f"t-{time.time_ns() % 10**10}"
    cluster.apply(
        f"/api/v1/namespaces/{namespace}", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}
    )
    cluster.apply(f"/api/v1/namespaces/{namespace}/secrets/registry-login", SECRET)
    with Argo(cluster, namespace, tmp_path / "argo") as argo:
        found = Place(cluster, namespace, argo)
        yield found
        for body in cluster.list(found.workspaces):
            cluster.patch(f"{found.workspaces}/{body['metadata']['name']}", {"metadata": {"finalizers": None}})
    cluster.delete(f"/api/v1/namespaces/{namespace}")


@pytest.fixture
def controller(place, tmp_path):
    with Controller(place.namespace, tmp_path / "controller.log") as found:
        yield found


def test_a_workspace_is_run_and_its_status_tells_the_truth(place, controller):
    place.apply(workspace())
    status = place.wait_state("Ready")
    body = place.get()
    assert FINALIZER in body["metadata"]["finalizers"]
    (run,) = place.argo.workflows()
    assert run["metadata"]["name"] == f"ws-{body['metadata']['annotations'][HASH]}" == status["workflow"]
    assert body["metadata"]["annotations"][REVISION] == "1"
    assert run["metadata"]["ownerReferences"][0]["uid"] == body["metadata"]["uid"]
    assert [s["name"] for s in status["steps"]] == [
        "fetch", "provision", "weights", "tune", "push", "deploy", "release",
    ]  # fmt: skip
    assert {s["phase"] for s in status["steps"]} == {"Succeeded"}
    assert {c["type"]: c["status"] for c in status["conditions"]} == {
        "ResourceReady": "True", "JobStarted": "True", "InferenceReady": "True", "WorkspaceSucceeded": "True",
        "Finished": "True", "Planned": "True", "LastRunSucceeded": "True",
    }  # fmt: skip
    assert (status["training"]["evalLoss"], status["endpoint"]) == (1.5, "http://ws.svc")
    assert [r["phase"] for r in status["runs"]] == ["Succeeded"]
    told = until(lambda: set(place.events()) >= {"Planned", "RunStarted", "RunSucceeded", "Serving"} and place.events())
    assert len(told) == len(set(told))


def test_a_change_stops_the_run_and_starts_the_next(place, controller):
    place.argo.seconds = 2.0
    place.apply(workspace(evaluation={"gate": "warn"}))
    first = until(lambda: place.status().get("state") == "Running" and place.status()["workflow"])
    place.argo.seconds = 0.0
    place.apply(workspace(evaluation={"gate": "off"}))
    until(lambda: place.status().get("workflow") not in (None, first))
    status = place.wait_state("Ready")
    assert [r["phase"] for r in status["runs"]] == ["Failed", "Succeeded"]
    assert place.get()["metadata"]["annotations"][REVISION] == "2"
    assert "RunStopping" in place.events()
    place.apply(workspace(evaluation={"gate": "warn"}))  # back to what it was: its old Workflow makes room
    until(lambda: place.get()["metadata"]["annotations"][REVISION] == "1")
    until(lambda: place.status()["workflow"] == first and place.status()["state"] == "Ready")
    assert len(place.argo.started) == 3


def test_what_cannot_run_is_said_at_once_and_runs_when_it_is_mended(place, controller):
    place.apply(workspace(config="mine"))
    until(lambda: place.condition("Planned").get("reason") == "ConfigMapNotFound")
    assert place.status()["state"] == "Pending"
    assert not place.argo.workflows()
    assert "PlanRefused" in until(place.events)
    config = "training_config:\n  QuantizationConfig: {load_in_4bit: true}\n  TrainingArguments: {max_steps: 2}\n"
    body = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "mine"},
        "data": {"training_config.yaml": config},
    }
    place.cluster.apply(f"/api/v1/namespaces/{place.namespace}/configmaps/mine", body)
    place.apply(workspace(config="mine", evaluation={"gate": "off"}))  # a change is looked at, at once
    place.wait_state("Ready")


def test_a_secret_that_is_missing_is_named(place, controller):
    output = {"image": "registry.example.com/team/ws:1", "imagePushSecret": "not-there"}
    place.apply(workspace(output=output))
    until(lambda: place.condition("Planned").get("reason") == "SecretNotFound")
    assert "'not-there'" in place.condition("Planned")["message"]


def test_a_failure_says_its_reason_and_remedy_in_the_conditions_and_an_event(place, controller):
    place.argo.failing["fetch"] = "TooManyBadRows: 3 of 4 rows cannot be used. Fix: Mend the rows."
    place.apply(workspace())
    status = place.wait_state("Failed")
    assert place.condition("WorkspaceSucceeded")["message"] == (
        "fetch: TooManyBadRows: 3 of 4 rows cannot be used. Mend the rows."
    )
    assert place.condition("Finished")["status"] == "True"
    assert {s["name"]: s["phase"] for s in status["steps"]}["tune"] == "Omitted"
    assert "RunFailed" in until(lambda: "RunFailed" in place.events() and place.events())


def test_a_workflow_that_is_deleted_by_hand_stays_deleted(place, controller):
    place.argo.seconds = 3.0
    place.apply(workspace())
    name = until(lambda: place.status().get("state") == "Running" and place.status()["workflow"])
    place.cluster.delete(f"{ARGO}/namespaces/{place.namespace}/workflows/{name}")
    place.wait_state("Failed")
    assert place.condition("WorkspaceSucceeded")["reason"] == "RunDeleted"
    time.sleep(1.0)
    assert not place.argo.workflows()
    place.argo.seconds = 0.0
    body = workspace()
    body["metadata"]["annotations"] = {"kaiflow.dev/run-again": "today"}
    place.apply(body)
    place.wait_state("Ready")


def test_a_workspace_that_goes_stops_its_run_and_leaves_nothing(place, controller):
    place.argo.seconds = 5.0
    place.apply(workspace())
    name = until(lambda: place.status().get("state") == "Running" and place.status()["workflow"])
    place.delete()
    until(lambda: place.get() is None, 40)
    run = place.cluster.get(f"{ARGO}/namespaces/{place.namespace}/workflows/{name}")
    assert run is None or run["spec"]["shutdown"] == "Stop"
    until(lambda: not place.argo.workflows(), 60)  # by the garbage collector


def test_a_schedule_runs_again_and_says_when_nothing_is_new(place, controller):
    place.apply(workspace(schedule={"cron": "0 3 * * 0"}))
    place.wait_state("Ready")
    cron = f"{ARGO}/namespaces/{place.namespace}/cronworkflows/ws"
    assert until(lambda: place.cluster.get(cron))["spec"]["schedules"] == ["0 3 * * 0"]
    place.argo.outputs["fetch"]["changed"] = "false"
    place.argo.tick("ws")
    status = until(lambda: (s := place.status())["runs"][-1].get("reason") == "NothingNew" and s)
    assert (status["state"], len(status["runs"]), status["training"]["evalLoss"]) == ("Ready", 2, 1.5)
    place.argo.outputs["fetch"]["changed"] = "true"
    place.argo.failing["push"] = "GateRefused: It is worse. Fix: Mend the data."
    place.argo.tick("ws")
    until(lambda: place.condition("LastRunSucceeded").get("status") == "False")
    assert place.status()["state"] == "Ready"  # what serves goes on serving
    assert place.status()["endpoint"] == "http://ws.svc"
    place.argo.failing.clear()
    place.argo.outputs["push"]["digest"] = "sha256:" + "2" * 64
    place.argo.tick("ws")
    until(lambda: place.status()["output"]["digest"] == "sha256:" + "2" * 64)
    assert [r.get("scheduled", False) for r in place.status()["runs"]] == [False, True, True, True]
    place.cluster.patch(f"{place.workspaces}/ws", {"tuning": {"schedule": None}})
    until(lambda: place.cluster.get(cron) is None)


def test_of_two_controllers_one_works_and_the_other_follows(place, controller, tmp_path):
    with Controller(place.namespace, tmp_path / "second.log") as second:
        place.apply(workspace())
        place.wait_state("Ready")
        leaders = [c for c in (controller, second) if c.events("leading")]
        assert len(leaders) == 1
        follower = second if leaders[0] is controller else controller
        leaders[0].kill()
        place.apply(workspace(evaluation={"gate": "off"}))
        until(lambda: place.get()["metadata"]["annotations"].get(REVISION) == "2")
        until(lambda: len(place.argo.started) == 2)
        until(lambda: len(place.status()["runs"]) == 2 and place.status()["state"] == "Ready")
        assert follower.events("leading")


def test_a_controller_that_is_told_to_end_gives_its_lease_back(place, controller):
    until(lambda: controller.events("leading"))
    path = f"/apis/coordination.k8s.io/v1/namespaces/{place.namespace}/leases/{lease_name(place.namespace)}"
    assert controller.kill(signal.SIGTERM) == 0
    assert place.cluster.get(path)["spec"]["holderIdentity"] == ""


def test_others_that_write_our_status_are_corrected(place, controller):
    place.apply(workspace())
    place.wait_state("Ready")
    place.cluster.patch(f"{place.workspaces}/ws/status", {"status": {"state": "Failed", "endpoint": "http://else"}})
    place.wait_state("Ready")
    assert place.status()["endpoint"] == "http://ws.svc"


def test_where_kaitos_crd_is_only_annotated_workspaces_are_taken(place, tmp_path):
    with Controller(place.namespace, tmp_path / "c.log", "--only-annotated"):
        mine = workspace("mine")
        mine["metadata"]["annotations"] = {"kaiflow.dev/managed": "true"}
        place.apply(workspace("theirs"))
        place.apply(mine)
        place.wait_state("Ready", "mine")
        assert place.status("theirs") == {}
        assert not place.get("theirs")["metadata"].get("finalizers")


@pytest.fixture
def proxied(place, tmp_path):
    """A controller whose connections can be cut, and the proxy that cuts them."""
    proxy, path = proxied_kubeconfig(tmp_path)
    log, environment = tmp_path / "controller.log", {"KUBECONFIG": str(path)}
    with Controller(place.namespace, log, "--lease-seconds", "15", environment=environment) as found:
        yield found, proxy
    proxy.close()


def test_watches_that_are_cut_lose_nothing(place, proxied):
    _, proxy = proxied
    place.argo.seconds = 0.3
    place.apply(workspace())
    for _ in range(12):
        time.sleep(0.3)
        proxy.cut()
    place.wait_state("Ready")
    assert len(place.argo.started) == 1


def test_what_happened_while_the_server_was_away_is_seen_afterwards(place, proxied):
    controller, proxy = proxied
    for name in ("stays", "goes"):
        place.apply(workspace(name))
        place.wait_state("Ready", name)
    proxy.refuse(True)
    place.cluster.patch(f"{place.workspaces}/goes", {"metadata": {"finalizers": None}})
    place.delete("goes")
    place.apply(workspace("comes"))
    path = f"{place.workspaces}/stays"
    place.cluster.patch(path, {"metadata": {"annotations": {"kaiflow.dev/run-again": "1"}}})
    time.sleep(2.0)
    proxy.refuse(False)
    place.wait_state("Ready", "comes")
    until(lambda: len(place.status("stays")["runs"]) == 2)
    assert controller.process.poll() is None


def test_wherever_it_is_killed_it_goes_on_and_makes_no_workflow_twice(place, tmp_path):
    """Fifty kills while Workspaces come, change and go: half of them wherever it is, half while it leads."""
    rng = random.Random(7)
    controller = Controller(place.namespace, tmp_path / "controller.log", "--lease-seconds", "1.5")
    kills = 0
    done = threading.Event()

    def reap():
        nonlocal kills
        chance = random.Random(8)
        while not done.is_set() and kills < 50:
            led = len(controller.events("leading")) if kills else 0
            controller.start()
            if kills % 2:
                until(lambda led=led: len(controller.events("leading")) > led, 60)
                time.sleep(chance.uniform(0.0, 1.5))
            else:
                time.sleep(chance.uniform(0.3, 2.2))
            controller.kill()
            kills += 1
        controller.start()

    reaper = threading.Thread(target=reap)
    reaper.start()
    names = [f"w{number}" for number in range(6)]
    deleted = []
    changed = 0
    try:
        for name in names:
            place.apply(workspace(name))
        while reaper.is_alive():
            name = rng.choice(names)
            place.cluster.patch(
                f"{place.workspaces}/{name}", {"metadata": {"annotations": {"kaiflow.dev/run-again": str(changed)}}}
            )
            changed += 1
            time.sleep(rng.uniform(1.0, 3.0))
            if changed % 5 == 0:
                place.delete(names[0])
                deleted.append(names[0])
                names[0] = f"w{changed + 100}"
                place.apply(workspace(names[0]))
        reaper.join()
        for name in deleted:
            until(lambda name=name: place.get(name) is None, 60)
        for name in names:
            place.wait_state("Ready", name, 60)
            body = place.get(name)
            assert place.status(name)["workflow"] == f"{name}-{body['metadata']['annotations'][HASH]}"
        until(lambda: all(run["status"].get("phase") for run in place.argo.workflows()))
        asked = Counter(place.argo.asked.values())
        assert kills == 50
        assert len(controller.events("leading")) > 25
        assert changed >= 10
        assert set(asked.values()) == {1}, [a for a, count in asked.items() if count > 1]
    finally:
        done.set()
        reaper.join()
        controller.kill()


def test_live_training_figures_are_in_the_status_within_seconds(place, controller):
    place.argo.seconds_of = {"tune": 25.0}
    place.apply(workspace())
    until(lambda: [s for s in place.status().get("steps", ()) if s["name"] == "tune" and s["phase"] == "Running"])
    (run,) = place.argo.workflows()
    name = run["metadata"]["name"]
    pod = f"{name}-tune-{node_id(name, f'{name}.tune(0)').rpartition('-')[2]}"
    line = {"event": "training", "trained_steps": 7, "total_steps": 9, "loss": 1.25, "tokens_per_second": 51.0}
    line |= {"eta_seconds": 12}
    body = {
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": pod},
        "spec": {"containers": [{
            "name": "main", "image": "localhost/busybox:1", "imagePullPolicy": "Never",
            "command": ["sh", "-c", f"echo '{json.dumps(line)}'; sleep 60"],
        }], "terminationGracePeriodSeconds": 0},
    }  # fmt: skip
    began = time.monotonic()
    place.cluster.apply(f"/api/v1/namespaces/{place.namespace}/pods/{pod}", body)
    training = until(lambda: (t := place.status().get("training", {})).get("loss") and t)
    assert time.monotonic() - began < 30
    assert training == {"loss": 1.25, "tokensPerSecond": 51.0, "etaSeconds": 12, "steps": "7/9"}
    place.wait_state("Ready")
    assert "etaSeconds" not in place.status()["training"]


def test_health_and_metrics_are_told(place, controller):
    place.apply(workspace())
    place.wait_state("Ready")
    port = controller.events("listening")[-1]["port"]

    def page(path):
        return urllib3.request("GET", f"http://127.0.0.1:{port}{path}").data.decode()

    assert page("/healthz") == page("/readyz") == "ok"
    numbers = page("/metrics")
    assert 'kaiflow_workspaces{state="Ready"} 1.0' in numbers
    assert "kaiflow_leading 1.0" in numbers
    assert "kaiflow_reconcile_errors_total 0.0" in numbers


# Python before 3.11.8 does not close a TLS connection that was reset before its handshake (python/cpython#113280).
KILLED = pytest.mark.filterwarnings(
    "ignore:Exception ignored in. <ssl.SSLSocket:pytest.PytestUnraisableExceptionWarning"
)


@pytest.fixture
def collected():
    """Let the connections that a killed API server has left be collected here, not in the middle of another test."""
    yield
    gc.collect()


@KILLED
def test_an_api_server_that_starts_again_is_found_again(collected, place, controller):
    """``KAIFLOW_TEST_RESTART`` is a command that ends the API server with force and starts it again."""
    restart = os.environ.get("KAIFLOW_TEST_RESTART")
    if not restart:
        pytest.skip("KAIFLOW_TEST_RESTART names no command")
    place.argo.seconds = 1.0
    place.apply(workspace())
    until(lambda: place.status().get("state") == "Running")
    subprocess.run(["sh", "-c", restart], check=True, capture_output=True)
    place.wait_state("Ready", seconds=90)
    assert len(place.argo.started) == 1
    place.apply(workspace(evaluation={"gate": "off"}))
    until(lambda: len(place.argo.started) == 2 and place.status()["state"] == "Ready", 60)


def test_a_workspace_that_comes_again_is_another(place, controller):
    place.argo.failing["fetch"] = "TooManyBadRows: None can be used. Fix: Mend them."
    place.apply(workspace())
    place.wait_state("Failed")
    first = place.get()["metadata"]["uid"]
    place.delete()
    until(lambda: place.get() is None, 40)
    place.argo.failing.clear()
    place.apply(workspace())  # the very same, before its predecessor's Workflow is collected
    status = place.wait_state("Ready")
    assert [run["phase"] for run in status["runs"]] == ["Succeeded"]
    (run,) = place.argo.workflows()
    assert run["metadata"]["ownerReferences"][0]["uid"] == place.get()["metadata"]["uid"] != first


@pytest.fixture
def with_nodes(place, tmp_path):
    """A Workspace that is Ready, whose runs make nodes."""
    with Controller(place.namespace, tmp_path / "controller.log", "--provisioner", "karpenter"):
        body = workspace()
        body["resource"]["instanceType"] = "Standard_NC24ads_A100_v4"
        place.apply(body)
        place.wait_state("Ready")
        yield place


def test_a_namespace_that_is_deleted_goes_though_no_cleanup_can_run_there(with_nodes, tmp_path):
    with_nodes.cluster.delete(f"/api/v1/namespaces/{with_nodes.namespace}")
    until(lambda: with_nodes.get() is None, 60)
    assert "nodes_may_remain" in (tmp_path / "controller.log").read_text()


def test_the_node_of_a_run_whose_workflow_was_deleted_is_given_back(with_nodes):
    """Argo runs no exit handler then."""
    place = with_nodes
    place.argo.seconds = 2.0
    body = workspace(evaluation={"gate": "off"})
    body["resource"]["instanceType"] = "Standard_NC24ads_A100_v4"
    place.apply(body)

    def training():
        phases = {step["name"]: step["phase"] for step in place.status().get("steps", ())}
        return phases.get("tune") == "Running" and place.status()["workflow"]

    name = until(training)
    workflows = f"{ARGO}/namespaces/{place.namespace}/workflows"
    place.cluster.delete(f"{workflows}/{name}")
    cleanup = until(lambda: place.cluster.get(f"{workflows}/{name}-cleanup"))
    (argument,) = [t["inputs"]["artifacts"][0]["raw"]["data"] for t in cleanup["spec"]["templates"]]
    assert f'"run":"{name}"' in argument
    until(lambda: place.cluster.get(f"{workflows}/{name}-cleanup").get("status", {}).get("phase") == "Succeeded")
    assert place.status()["workflow"] == name
    assert "NodeReleased" in place.events()


def test_nodes_that_runs_have_made_are_given_back_before_it_goes(with_nodes):
    place = with_nodes
    uid = place.get()["metadata"]["uid"]
    place.argo.seconds = 2.0
    place.delete()
    name = f"ws-{uid[:8]}-cleanup"
    path = f"{ARGO}/namespaces/{place.namespace}/workflows/{name}"
    until(lambda: ((place.cluster.get(path) or {}).get("status") or {}).get("phase") == "Running")
    assert place.get() is not None
    until(lambda: place.get() is None, 40)
    assert place.cluster.get(path)["status"]["phase"] == "Succeeded"
