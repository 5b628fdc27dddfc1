"""The NodeClaim as KAITO makes it, and what its conditions mean."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from presets.node_request import NodeAttempt, NodePlacement, NodeRequest
from presets.provisioners import Cloud
from steps.contract import WorkspaceRef
from steps.node_claims import node_claim, node_name, node_standing, own_labels, standing, too_late

ATTEMPT = NodeAttempt("Standard_NC24ads_A100_v4")
WORKSPACE = WorkspaceRef(name="tune", namespace="team", uid="u", revision="r")


def request(cloud: Cloud = "azure"):
    return NodeRequest(NodePlacement("karpenter", cloud), (ATTEMPT,), 1, {"app": "tune"}, (), 160)


def node(gpus="1", ready="True"):
    return {
        "metadata": {"name": "n"},
        "status": {"conditions": [{"type": "Ready", "status": ready}], "allocatable": {"nvidia.com/gpu": gpus}},
    }


def claim(*conditions):
    told = [dict(zip(("type", "status", "reason", "message"), c, strict=False)) for c in conditions]
    return {"metadata": {"name": "kf0"}, "status": {"conditions": told}}


DONE = [(stage, "True") for stage in ("Launched", "Registered", "Initialized", "Ready")]


def requirements(body):
    return {r["key"]: (r["operator"], r["values"]) for r in body["spec"]["requirements"]}


@pytest.mark.parametrize(
    ("cloud", "group", "own"),
    [
        ("azure", "kaito.sh", "karpenter.azure.com/sku-name"),
        ("nap", "karpenter.azure.com", "karpenter.azure.com/sku-name"),
        ("aws", "karpenter.k8s.aws", "karpenter.k8s.aws/instance-gpu-count"),
    ],
)
def test_each_cloud_has_its_node_class_and_requirement(cloud, group, own):
    body = node_claim(request(cloud), ATTEMPT, "kf0", own_labels("run", WORKSPACE))
    assert body["spec"]["nodeClassRef"]["group"] == group
    wanted = requirements(body)
    assert own in wanted
    assert wanted["node.kubernetes.io/instance-type"] == ("In", [ATTEMPT.instance_type])
    assert wanted["karpenter.sh/capacity-type"] == ("In", ["on-demand"])


def test_labels_taint_storage_and_lifetime():
    body = node_claim(request(), NodeAttempt("X", "2", spot=True), "kf0", own_labels("run", WORKSPACE))
    assert body["metadata"]["labels"] == {
        "karpenter.sh/nodepool": "kaito", "app": "tune", "kaiflow.dev/node": "true",
        "kaiflow.dev/workspace": "tune", "kaiflow.dev/workspacenamespace": "team",
        "kaito.sh/workspace": "tune", "kaito.sh/workspacenamespace": "team", "kaiflow.dev/run": "run",
    }  # fmt: skip
    assert body["metadata"]["annotations"]["karpenter.sh/do-not-disrupt"] == "true"
    assert body["spec"]["taints"] == [{"key": "sku", "value": "gpu", "effect": "NoSchedule"}]
    assert body["spec"]["resources"] == {"requests": {"storage": "160Gi"}}
    assert body["spec"]["expireAfter"] == "Never"
    assert requirements(body)["topology.kubernetes.io/zone"] == ("In", ["2"])
    assert requirements(body)["karpenter.sh/capacity-type"] == ("In", ["spot"])


@given(st.text(), st.text(), st.text(), st.integers(0, 15))
def test_names_are_those_of_agent_pools_and_the_same_run_has_the_same(run, name, namespace, attempt):
    workspace = WorkspaceRef(name=name, namespace=namespace, uid="u", revision="r")
    found = node_name(run, workspace, attempt)
    assert re.fullmatch(r"[a-z][a-z0-9]{0,10}", found)
    assert found == node_name(run, workspace, attempt)
    assert found != node_name(run, workspace, attempt + 1 if attempt < 15 else 0)


@pytest.mark.parametrize("reached", range(4))
def test_stages_are_waited_for_in_their_order(reached):
    assert standing(claim(*DONE[:reached]), None, 1).stage == DONE[reached][0]


def test_a_ready_node_still_waits_for_its_gpus():
    assert standing(claim(*DONE), node(gpus="0"), 1).stage == "GPUs"
    assert standing(claim(*DONE), node(gpus="1"), 2).stage == "GPUs"
    assert standing(claim(*DONE), node(ready="False"), 1).stage == "Ready"
    assert standing(claim(*DONE), None, 1).stage == "Ready"
    assert standing(claim(*DONE), node(gpus="8"), 1).stage == ""


LAUNCHED = [
    (
        "InsufficientCapacityError",
        "all requested instance types were unavailable during launch",
        "InsufficientCapacity",
    ),
    ("LaunchFailed", "creating instance, quota exceeded: standardNCADSA100v4Family", "QuotaExceeded"),
    ("LaunchFailed", "The client does not have authorization to perform action", "NotAuthorized"),
    ("NodeClassNotReady", "NodeClass default is not ready", "NodeClassNotReady"),
]


@pytest.mark.parametrize(("reason", "message", "ours"), LAUNCHED)
@pytest.mark.parametrize("status", ["False", "Unknown"])
def test_a_launch_that_will_not_be_is_refused_with_its_reason(reason, message, ours, status):
    found = standing(claim(("Launched", status, reason, message)), None, 1)
    assert found.refusal is not None
    assert found.refusal.reason == ours
    assert message in found.refusal.message


@pytest.mark.parametrize("reason", ["AwaitingReconciliation", "", "LaunchFailed"])
def test_what_may_still_come_is_waited_for(reason):
    assert (
        standing(claim(("Launched", "Unknown", reason, "object is awaiting reconciliation")), None, 1).refusal is None
    )


def test_what_does_not_come_in_time_says_what_it_waited_for():
    plugin = too_late(node_standing(node(gpus="0"), 1), "kf0", 60)
    assert (plugin.reason, plugin.elsewhere) == ("GpuPluginMissing", False)
    assert "device plugin" in plugin.fix
    registered = too_late(standing(claim(*DONE[:1]), None, 1), "kf0", 60)
    assert registered.reason == "NodeTimeout"
    assert "not Registered after 60 s" in registered.message
