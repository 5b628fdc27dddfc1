"""The objects of a served model, and what its pods say when they do not come up."""

import json
from dataclasses import replace

import pytest

from presets.recipe import ModelRecipe, QuantizationRecipe
from presets.serving_place import Mount, ServingPlace
from steps.contract import RUN_LABEL, WorkspaceRef
from steps.deploy_cluster import pod_problem
from steps.serving_files import VARIABLE, Served
from steps.serving_objects import objects, selector
from tests.charts import kind_of, unknown_fields

WORKSPACE = WorkspaceRef(name="ws", namespace="team", uid="u-1", revision="r1")
SERVED = Served(
    store="registry:r.example.com/a", weights="sha256:w", run="sha256:r", name="ws", host="0.0.0.0", port=5000,
    model=ModelRecipe("phi-4", "microsoft/phi-4", "abc", "mit", False, 16384, None, "bfloat16", None, None, None),
    quantization=QuantizationRecipe(4, "nf4", True, "bfloat16", 6.0, (), False),
)  # fmt: skip
CPU = ServingPlace("ghcr.io/kaiflow/serve:0.1.0")
GPU = ServingPlace(
    "serve", gpus=1, node_labels={"app": "ws"}, on_own_node=True, registry_secret="login", pull_secrets=("pull",),
    mounts=(Mount("weights", {"image": {"reference": "r/w@sha256:1"}}, "/mnt/weights"),),
    environment={"HF_ENDPOINT": "https://hub"}, pod_labels={"identity/use": "true"}, access_secret="hub-token",
    weights_secrets=("a", "b"),
)  # fmt: skip


def made(place=CPU, replicas=1):
    digests = {"kaiflow.dev/adapter": "sha256:r"}
    return {b["kind"]: b for _, b in objects(WORKSPACE, SERVED, place, replicas, "ws-r1", digests)}


@pytest.mark.parametrize("place", [CPU, GPU], ids=["CPU", "GPU"])
def test_they_are_kubernetes_objects_of_the_workspace(place):
    for path, body in objects(WORKSPACE, SERVED, place, 2, "ws-r1", {}):
        assert unknown_fields(body, kind_of(body), body["kind"]) == []
        assert path.endswith(f"/namespaces/team/{body['kind'].lower()}s/ws")
        assert body["metadata"]["ownerReferences"][0]["uid"] == "u-1"


def test_the_service_leads_both_ports_to_the_server():
    ports = made()["Service"]["spec"]["ports"]
    assert [(p["port"], p["targetPort"]) for p in ports] == [(80, "http"), (29500, "http")]
    assert made()["Service"]["spec"]["selector"] == selector(WORKSPACE)


def test_another_adapter_takes_over_only_when_it_answers():
    spec = made()["Deployment"]["spec"]
    assert spec["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}
    assert spec["template"]["metadata"]["annotations"] == {"kaiflow.dev/adapter": "sha256:r"}
    (server,) = spec["template"]["spec"]["containers"]
    assert {"startupProbe", "readinessProbe", "livenessProbe"} <= set(server)
    (files,) = spec["template"]["spec"]["initContainers"]
    told = next(e["value"] for e in files["env"] if e["name"] == VARIABLE)
    assert Served.model_validate(json.loads(told)) == SERVED


def test_several_replicas_are_not_taken_away_together():
    assert "PodDisruptionBudget" not in made()
    assert made(replicas=2)["PodDisruptionBudget"]["spec"]["maxUnavailable"] == 1


def test_the_pod_has_the_labels_of_all_pods_and_the_token_for_its_weights():
    template = made(GPU)["Deployment"]["spec"]["template"]
    assert template["metadata"]["labels"]["identity/use"] == "true"
    key = {"name": "hub-token", "key": "HF_TOKEN", "optional": True}
    mounted = {v["name"]: v["mountPath"] for v in template["spec"]["initContainers"][0]["volumeMounts"]}
    assert {"pull-0": "/run/kaiflow/pull/0", "pull-1": "/run/kaiflow/pull/1"}.items() <= mounted.items()
    volumes = {v["name"]: v.get("secret", {}).get("secretName") for v in template["spec"]["volumes"]}
    assert (volumes["pull-0"], volumes["pull-1"], volumes["registry"]) == ("a", "b", "login")
    assert {"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": key}} in template["spec"]["initContainers"][0]["env"]


def test_on_a_gpu_it_goes_on_the_node_that_has_trained():
    pod = made(GPU)["Deployment"]["spec"]["template"]["spec"]
    assert pod["nodeSelector"] == {"app": "ws", RUN_LABEL: "ws-r1"}
    assert {"key": "sku", "operator": "Equal", "value": "gpu", "effect": "NoSchedule"} in pod["tolerations"]
    assert pod["containers"][0]["resources"]["limits"] == {"nvidia.com/gpu": "1"}
    assert {"name": "HF_ENDPOINT", "value": "https://hub"} in pod["initContainers"][0]["env"]
    assert "nodeSelector" not in made()["Deployment"]["spec"]["template"]["spec"]


@pytest.mark.parametrize("place", [CPU, GPU], ids=["CPU", "GPU"])
def test_its_pods_are_restricted(place):
    pod = made(place)["Deployment"]["spec"]["template"]["spec"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"]
    for container in (*pod["initContainers"], *pod["containers"]):
        assert container["securityContext"]["readOnlyRootFilesystem"]
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}


def waiting(reason, message=""):
    return {
        "status": {"containerStatuses": [{"image": "i", "state": {"waiting": {"reason": reason, "message": message}}}]}
    }


def crashed(restarts, ready=False, **terminated):
    ended = {"exitCode": 1, **terminated}
    container = {"restartCount": restarts, "ready": ready, "lastState": {"terminated": ended}, "state": {}}
    return {"status": {"initContainerStatuses": [container]}}


UNSCHEDULABLE = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes"}
PROBLEMS = [
    ({"status": {}}, None, False),
    ({"status": {"conditions": [UNSCHEDULABLE]}}, "Unschedulable", False),
    (waiting("ImagePullBackOff", "no such image"), "ImagePullError", False),
    (waiting("InvalidImageName"), "ImagePullError", True),
    (waiting("ContainerCreating"), None, False),
    (crashed(1, message="HubForbidden: gated. Fix: Ask."), "ContainerCrashLoopBackOff", False),
    (crashed(3), "ContainerCrashLoopBackOff", True),
    (crashed(3, reason="OOMKilled"), "ContainerOOMKilled", True),
    (crashed(3, ready=True), None, False),
]


@pytest.mark.parametrize(("pod", "reason", "hopeless"), PROBLEMS)
def test_a_pod_that_does_not_come_up_says_why_and_whether_to_wait(pod, reason, hopeless):
    found = pod_problem(pod)
    assert (found[0].reason if found else None, found[1] if found else False) == (reason, hopeless)


def test_the_pod_signs_in_as_the_account_that_it_is_told_and_carries_no_token_of_the_cluster():
    """An identity for the registry is bound to an account; the namespace's own has none."""
    spec = made(replace(CPU, account="kaiflow-step", pull_policy="Always"))["Deployment"]["spec"]["template"]["spec"]
    assert (spec["serviceAccountName"], spec["automountServiceAccountToken"]) == ("kaiflow-step", False)
    assert {c["imagePullPolicy"] for c in (*spec["containers"], *spec["initContainers"])} == {"Always"}
