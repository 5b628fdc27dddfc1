"""Workflows as Argo writes them: compressed, offloaded, retried, hooked."""

import base64
import gzip
import json

import brotli
import pytest
import zstandard

from controller.observed_steps import read_steps
from controller.observed_workflow import is_unreadable, nodes_of, pod_of, pruned
from pipelines.nodes import node_id

PACKERS = {
    "gzip": gzip.compress, "zstd": lambda data: zstandard.ZstdCompressor().compress(data), "brotli": brotli.compress,
}  # fmt: skip


def node(name, **fields):
    return {node_id("wf", name): {"id": node_id("wf", name), "name": name, **fields}}


def workflow(nodes, **status):
    return {
        "metadata": {"name": "wf", "namespace": "n", "uid": "u", "resourceVersion": "1", "managedFields": [{}]},
        "spec": {
            "onExit": "release", "entrypoint": "run",
            "templates": [{"name": "run", "dag": {"tasks": [{"name": "tune", "template": "tune"}]}}, {"name": "tune"}],
        },
        "status": {"phase": "Running", "nodes": nodes, "storedTemplates": {"a": {}}, **status},
    }  # fmt: skip


RETRIED = {
    **node("wf.tune", type="Retry", phase="Running", templateName="tune", children=[
        node_id("wf", "wf.tune(0)"), node_id("wf", "wf.tune(1)"), node_id("wf", "wf.tune.hooks.failed"),
    ]),
    **node("wf.tune(0)", type="Pod", phase="Error", message="pod deleted", nodeFlag={"retried": True}),
    **node("wf.tune(1)", type="Pod", phase="Running", templateName="tune", nodeFlag={"retried": True}, progress="3/9"),
    **node("wf.tune.hooks.failed", type="Pod", phase="Succeeded", nodeFlag={"hooked": True}),
}  # fmt: skip


def test_what_is_kept_reads_as_the_whole_does():
    body = workflow(RETRIED)
    kept = pruned(body)
    assert read_steps(kept) == read_steps(body)
    assert "managedFields" not in kept["metadata"]
    assert "storedTemplates" not in kept["status"]
    assert len(json.dumps(kept)) < len(json.dumps(body))


def test_the_attempt_that_runs_is_shown_and_hooks_are_none():
    tune = read_steps(pruned(workflow(RETRIED)))[0]
    assert (tune.phase, tune.progress) == ("Running", "3/9")


def test_the_pod_is_named_as_argo_names_it():
    assert pod_of(pruned(workflow(RETRIED)), "tune") == node_id("wf", "wf.tune(1)").replace("wf-", "wf-tune-")
    assert pod_of(pruned(workflow({})), "tune") == ""


@pytest.mark.parametrize("packer", PACKERS)
def test_compressed_nodes_are_read(packer):
    packed = base64.b64encode(PACKERS[packer](json.dumps(RETRIED).encode())).decode()
    assert nodes_of({"compressedNodes": packed}) == RETRIED
    body = workflow({}, compressedNodes=packed)
    assert read_steps(pruned(body))[0].phase == "Running"


@pytest.mark.parametrize("packed", ["", "no base64!", base64.b64encode(b"\x1f\x8bcut").decode(), "AAAA"])
def test_what_cannot_be_read_is_no_nodes(packed):
    assert nodes_of({"compressedNodes": packed}) == {}


def test_offloaded_nodes_are_said_to_be_elsewhere():
    assert is_unreadable(pruned(workflow({}, offloadNodeStatusVersion="fnv:1")))
    assert not is_unreadable(pruned(workflow(RETRIED)))


def test_a_task_that_was_never_reached_is_omitted_once_the_run_has_ended():
    done = node("wf.fetch", type="Pod", phase="Failed")
    steps = read_steps(pruned(workflow(done, phase="Failed")))
    assert [step.phase for step in steps] == ["Omitted", "Omitted"]


def test_a_step_whose_outputs_have_not_arrived_still_runs():
    done = node("wf.tune", type="Pod", phase="Succeeded", taskResultSynced=False)
    assert read_steps(pruned(workflow(done)))[0].phase == "Running"


SAID = "main: Error (exit code 65): AuditFailed: 3 rows are bad. Fix: Mend them."


@pytest.mark.parametrize(
    "argo", ["retryStrategy.expression evaluated to false", "No more retries left", "Max duration limit exceeded", ""]
)
def test_a_step_that_is_not_tried_again_says_what_its_last_attempt_said(argo):
    """Argo writes of the Retry node why it gives up (``processNodeRetries``); why the step failed, its child says."""
    nodes = {
        **node("wf.tune", type="Retry", phase="Failed", message=argo, children=[node_id("wf", "wf.tune(0)")]),
        **node("wf.tune(0)", type="Pod", phase="Failed", message=SAID, nodeFlag={"retried": True}),
    }
    tune = next(step for step in read_steps(workflow(nodes, phase="Failed")) if step.name == "tune")
    assert tune.message == SAID


def test_a_step_that_a_person_has_stopped_says_so():
    stopped = "Stopped with strategy 'Stop'"
    nodes = {
        **node("wf.tune", type="Retry", phase="Failed", message=stopped, children=[node_id("wf", "wf.tune(0)")]),
        **node(
            "wf.tune(0)", type="Pod", phase="Failed", message="main: Error (exit code 143)", nodeFlag={"retried": True}
        ),
    }
    tune = next(step for step in read_steps(workflow(nodes, phase="Failed")) if step.name == "tune")
    assert tune.message == stopped
