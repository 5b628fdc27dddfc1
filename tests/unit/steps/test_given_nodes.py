"""Nodes that others have given: which serves, and which lacks what."""

from dataclasses import replace

import pytest

from presets.node_request import NodeAttempt, NodePlacement, NodeRequest
from steps.node_provisioner import RefusedError
from steps.provision_byo import GivenNodes

REQUEST = NodeRequest(NodePlacement("byo"), (NodeAttempt(""),), 1, {"pool": "gpu"})


def node(name, gpus="1", ready="True", machine="X", product="A100", **spec):
    labels = {"pool": "gpu", "node.kubernetes.io/instance-type": machine, "nvidia.com/gpu.product": product}
    return {
        "metadata": {"name": name, "labels": labels},
        "spec": spec,
        "status": {"conditions": [{"type": "Ready", "status": ready}], "allocatable": {"nvidia.com/gpu": gpus}},
    }


def taken(nodes, request=REQUEST, machine=""):
    class Cluster:
        def list(self, path, labels):
            return [n for n in nodes if labels.items() <= n["metadata"]["labels"].items()]

    return GivenNodes(request, Cluster()).take(NodeAttempt(machine), "x", {}, lambda said: None)  # type: ignore[arg-type]


def why(nodes, request=REQUEST, machine=""):
    with pytest.raises(RefusedError) as refused:
        taken(nodes, request, machine)
    assert refused.value.refusal.fix
    return refused.value.refusal


def test_one_that_serves_is_taken_the_preferred_or_the_one_with_most_gpus():
    nodes = [node("a"), node("b", gpus="4"), node("c", gpus="0")]
    assert taken(nodes) == "b"
    assert taken(nodes, replace(REQUEST, preferred_nodes=("a", "c"))) == "a"


def test_no_node_with_the_labels():
    assert why([]).message == "No node has the labels pool=gpu."


def test_which_lacks_what():
    nodes = [
        node("few", gpus="1"), node("down", ready="False", gpus="8"), node("shut", gpus="8", unschedulable=True),
        node("other", gpus="8", machine="Y"),
    ]  # fmt: skip
    said = why(nodes, replace(REQUEST, gpus=2), machine="x").message
    assert "few: 1 of 2 nvidia.com/gpu allocatable" in said
    assert "down: the node is not ready" in said
    assert "shut: it is cordoned" in said
    assert "other: its instance type is Y" in said


def test_a_machine_is_named_in_any_case():
    assert taken([node("a", machine="Standard_NC24ads_A100_v4")], machine="standard_nc24ads_a100_V4") == "a"


def test_gpus_of_several_kinds_are_refused():
    assert why([node("a"), node("b", product="T4")]).reason == "NodesDiffer"
