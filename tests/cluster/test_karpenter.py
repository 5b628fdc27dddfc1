"""provision and release on a real API server, where a stand-in plays Karpenter."""

import json
import multiprocessing
import random
import time
from dataclasses import asdict, replace

import pytest
from typer.testing import CliRunner

from controller.main import app
from presets.errors import UnavailableError
from presets.node_request import NodeAttempt, NodePlacement, NodeRequest
from steps import node_provisioner, provision, provision_karpenter
from steps import release as release_module
from steps.contract import RUN_LABEL, Context, Request, Verb, WorkspaceRef
from steps.node_claims import node_name
from steps.node_orphans import held_nodes
from steps.node_provisioner import Clock
from steps.provision_karpenter import CLAIMS, Karpenter
from steps.release import release
from tests.cluster.conftest import left_behind

A100, H100 = NodeAttempt("Standard_NC24ads_A100_v4"), NodeAttempt("Standard_NC40ads_H100_v5")
WANTED = NodeRequest(NodePlacement("karpenter", wait_seconds=2), (A100,), 1, {"app": "tune"}, (), 160)
WORKSPACE = WorkspaceRef(name="tune", namespace="default", uid="u-1", revision="r1")


def request(verb: Verb = "provision", wanted=WANTED, run="tune-r1"):
    return Request(
        verb=verb,
        workspace=WORKSPACE,
        store="x",
        target="cluster",
        recipe={"node": asdict(wanted)},
        inputs={"run": run},
    )


def provisioned(tmp_path, wanted=WANTED, run="tune-r1"):
    return provision.run(request(wanted=wanted, run=run), Context(tmp_path, lambda done, total: None))


def released(cluster, wanted=WANTED, run="tune-r1"):
    return release(request("release", wanted, run), Karpenter(wanted, cluster, Clock()), cluster, Clock())


def test_a_node_is_taken_found_again_and_given_back(cluster, karpenter, tmp_path):
    name = node_name("tune-r1", WORKSPACE, 0)
    result = provisioned(tmp_path)
    assert result.outputs["nodes"] == f"node-{name}"
    assert result.outputs["instance-type"] == A100.instance_type
    assert provisioned(tmp_path).outputs["nodes"] == f"node-{name}"
    assert karpenter.launched == [A100.instance_type]
    node = cluster.get(f"/api/v1/nodes/node-{name}")
    assert node["metadata"]["labels"][RUN_LABEL] == "tune-r1"  # what the training's pod asks for
    assert released(cluster) == f"{name} gone"
    assert released(cluster) == "nothing was held"
    assert left_behind(cluster) == []


FAULTS = {
    "never launched": "NodeTimeout", "no GPU plugin": "GpuPluginMissing", "quota": "QuotaExceeded",
    "no capacity": "InsufficientCapacity", "deleted": "NodeDeleted",
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_node_that_does_not_come_says_why_and_leaves_nothing(cluster, karpenter, tmp_path, fault):
    karpenter.fault = lambda claim: fault
    with pytest.raises(UnavailableError) as failed:
        provisioned(tmp_path)
    assert failed.value.reason == FAULTS[fault]
    assert failed.value.fix
    released(cluster)
    assert left_behind(cluster) == []


def test_the_next_machine_is_tried_and_the_refusals_are_told(cluster, karpenter, tmp_path):
    karpenter.fault = lambda claim: "no capacity" if "A100" in str(claim["spec"]) else ""
    result = provisioned(tmp_path, replace(WANTED, attempts=(replace(A100, spot=True), A100, H100)))
    assert result.outputs["instance-type"] == H100.instance_type
    told = json.loads(result.outputs["attempts"])
    assert [(a["attempt"], a["reason"]) for a in told] == [
        ("Standard_NC24ads_A100_v4 spot", "InsufficientCapacity"), ("Standard_NC24ads_A100_v4", "InsufficientCapacity"),
    ]  # fmt: skip
    assert released(cluster).endswith("gone")
    assert left_behind(cluster) == []


def test_another_machine_is_started_when_the_last_has_gone(cluster, karpenter, tmp_path):
    karpenter.ends_after_seconds = 1.5
    karpenter.fault = lambda claim: "quota" if "A100" in str(claim["spec"]) else ""
    provisioned(tmp_path, replace(WANTED, attempts=(A100, H100)))
    (tmp_path / "second").mkdir()
    karpenter.fault = lambda claim: ""
    provisioned(tmp_path / "second", run="tune-r2")
    assert karpenter.launched == [H100.instance_type, A100.instance_type]
    assert karpenter.beside == [0, 0]
    released(cluster, run="tune-r2")
    assert left_behind(cluster) == []


def test_two_runs_of_a_workspace_never_hold_two_nodes(cluster, karpenter, tmp_path):
    for run in ("tune-r1", "tune-r2"):
        (tmp_path / run).mkdir()
        provisioned(tmp_path / run, run=run)
    assert {c["metadata"]["labels"][RUN_LABEL] for c in cluster.list(CLAIMS)} == {"tune-r2"}
    released(cluster, run="tune-r2")
    assert left_behind(cluster) == []


def deployment(run):
    return {
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "tune", "namespace": "default", "labels": {"kaito.sh/workspace": "tune"}},
        "spec": {
            "replicas": 0, "selector": {"matchLabels": {"app": "tune"}},
            "template": {
                "metadata": {"labels": {"app": "tune"}},
                "spec": {"nodeSelector": {RUN_LABEL: run}, "containers": [{"name": "a", "image": "localhost/pause:1"}]},
            },
        },
    }  # fmt: skip


def test_a_node_that_serves_is_kept_by_release_and_by_the_next_run(cluster, karpenter, tmp_path):
    provisioned(tmp_path)
    path = "/apis/apps/v1/namespaces/default/deployments/tune"
    cluster.apply(path, deployment("tune-r1"))
    try:
        assert released(cluster).endswith("kept: it serves")
        (tmp_path / "next").mkdir()
        provisioned(tmp_path / "next", run="tune-r2")
        runs = {c["metadata"]["labels"][RUN_LABEL] for c in cluster.list(CLAIMS)}
        assert runs == {"tune-r1", "tune-r2"}
    finally:
        cluster.delete(path)
    released(cluster)
    released(cluster, run="tune-r2")
    assert left_behind(cluster) == []


def test_claims_of_others_are_never_touched(cluster, karpenter, tmp_path):
    others = {
        "apiVersion": "karpenter.sh/v1", "kind": "NodeClaim",
        "metadata": {"name": "given", "labels": {"kaito.sh/workspace": "tune", "app": "tune"}},
        "spec": {"requirements": [{}, {"key": "node.kubernetes.io/instance-type", "operator": "In", "values": ["X"]}]},
    }  # fmt: skip
    cluster.apply(f"{CLAIMS}/given", others)
    provisioned(tmp_path)
    released(cluster)
    assert [c["metadata"]["name"] for c in cluster.list(CLAIMS)] == ["given"]


def step(verb, run, work):
    """One step in a process of its own."""
    for module in (node_provisioner, provision_karpenter, release_module):
        vars(module)["POLL_SECONDS"] = 0.02
    patient = replace(WANTED, placement=replace(WANTED.placement, wait_seconds=30))
    run_step = provision.run if verb == "provision" else release_module.run
    run_step(request(verb, patient, run), Context(work, lambda done, total: None))


@pytest.mark.slow
def test_nothing_is_left_behind_however_often_provision_and_release_are_killed(cluster, karpenter, tmp_path):
    """A hundred kills at random points of both steps, as pods die; the last try of each ends, and all is well."""
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["kubernetes", "tests.cluster.test_karpenter"])
    rng, kills, rounds = random.Random(6), 0, 0
    while kills < 100:
        run, rounds = f"tune-k{rounds}", rounds + 1
        for verb in ("provision", "release"):
            work = tmp_path / f"{run}-{verb}"
            work.mkdir()
            for lasts in (False, False, True):
                process = processes.Process(target=step, args=(verb, run, work))
                process.start()
                if not lasts:
                    process.join(rng.uniform(0.0, 0.6))
                    process.kill()
                    kills += 1
                process.join(60)
                assert not lasts or process.exitcode == 0
            claims = cluster.list(CLAIMS)
            assert {c["metadata"]["labels"][RUN_LABEL] for c in claims} == ({run} if verb == "provision" else set())
            assert len(claims) == (1 if verb == "provision" else 0)
    assert left_behind(cluster) == []


def test_orphans_are_what_no_run_and_no_deployment_needs(cluster, karpenter, tmp_path):
    maker = Karpenter(WANTED, cluster, Clock())
    provisioned(tmp_path)  # its Workflow is gone: there is none of that name
    (held,) = held_nodes(maker, cluster)
    assert (held.orphan, held.phase, held.node.instance_type) == (True, "Gone", A100.instance_type)
    path = "/apis/apps/v1/namespaces/default/deployments/tune"
    cluster.apply(path, deployment("tune-r1"))
    try:
        (held,) = held_nodes(maker, cluster)
        assert (held.orphan, held.held_for) == (False, "deployment of tune")
    finally:
        cluster.delete(path)
    listed = CliRunner().invoke(app, ["nodes", "--orphans", "-o", "json"])
    assert [(row["name"], row["an-hour"]) for row in json.loads(listed.stdout)] == [(held.node.name, "$3.67")]
    assert CliRunner().invoke(app, ["nodes", "--orphans", "--delete"]).exit_code == 0
    for _ in range(100):
        if not left_behind(cluster):
            break
        time.sleep(0.05)
    assert left_behind(cluster) == []
