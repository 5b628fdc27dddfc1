"""What a cluster may do to a controller that works: forget its history, lose Argo's kinds, give rights in all of it."""

import base64
import os
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.charts import rendered
from tests.cluster.argo import argo_crd
from tests.cluster.conftest import established
from tests.cluster.cut_proxy import proxied_kubeconfig
from tests.cluster.operator_process import Controller, until
from tests.cluster.test_controller import KILLED, collected, place, workspace  # noqa: F401  (fixtures)
from tests.cluster.test_rights import path_of

CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


@KILLED
def test_what_changed_while_the_servers_memory_was_lost_is_seen_by_a_new_list(collected, place, tmp_path):  # noqa: F811
    """410: the place that the watch would go on from is older than what the API server remembers."""
    restart = os.environ.get("KAIFLOW_TEST_RESTART")
    if not restart:
        pytest.skip("KAIFLOW_TEST_RESTART names no command")
    proxy, path = proxied_kubeconfig(tmp_path)
    log, environment = tmp_path / "controller.log", {"KUBECONFIG": str(path)}
    with Controller(place.namespace, log, "--lease-seconds", "120", environment=environment) as controller:
        for name in ("stays", "goes"):
            place.apply(workspace(name))
            place.wait_state("Ready", name)
        first = controller.process
        proxy.refuse(True)
        place.cluster.patch(f"{place.workspaces}/goes", {"metadata": {"finalizers": None}})
        place.delete("goes")
        place.apply(workspace("comes"))
        again = {"metadata": {"annotations": {"kaiflow.dev/run-again": "1"}}}
        place.cluster.patch(f"{place.workspaces}/stays", again)
        subprocess.run(["sh", "-c", restart], check=True, capture_output=True)
        proxy.refuse(False)
        place.wait_state("Ready", "comes", seconds=90)
        until(lambda: len(place.status("stays")["runs"]) == 2 and place.status("stays")["state"] == "Ready", 60)
        assert controller.process is first  # by the very process that had seen what was before
        assert [event for event in controller.events("watch_ended") if "410" in event["why"]]
    proxy.close()
    assert len(place.argo.started) == len(set(place.argo.started)) == 4


IMPATIENT = "from controller import reflector as r; r.GONE_SECONDS, r.LONGEST_PAUSE_SECONDS = 5.0, 2.0"


def test_a_workspace_goes_though_argos_kinds_are_gone(cluster, place, tmp_path):  # noqa: F811
    with Controller(place.namespace, tmp_path / "controller.log", first=IMPATIENT) as controller:
        for name in ("goes", "stays"):
            place.apply(workspace(name, schedule={"cron": "0 3 * * 0"}))
            place.wait_state("Ready", name)
        try:
            for plural in ("workflows", "cronworkflows"):
                cluster.delete(f"{CRDS}/{plural}.argoproj.io")
                until(lambda plural=plural: cluster.get(f"{CRDS}/{plural}.argoproj.io") is None)
            place.delete("goes")
            until(lambda: place.get("goes") is None, 60)
            until(lambda: "ArgoMissing" in place.events(), 60)
            assert place.status("stays")["state"] == "Ready"  # what cannot be seen now is not therefore gone
            assert controller.process is not None
            assert controller.process.poll() is None
        finally:
            for kind in ("Workflow", "CronWorkflow"):
                established(cluster, argo_crd(kind))
        place.cluster.patch(f"{place.workspaces}/stays", {"metadata": {"annotations": {"kaiflow.dev/run-again": "2"}}})
        until(lambda: place.status("stays").get("state") == "Ready" and place.argo.workflows(), 90)


def test_the_account_for_the_whole_cluster_is_enough_too(cluster, place, tmp_path):  # noqa: F811
    values = {"namespaces": [place.namespace], "replicas": 1, "nodes": {"provisioner": "byo"}}
    kinds = ("ServiceAccount", "Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding")
    bodies = [b for b in rendered(values, place.namespace) if b["kind"] in kinds]
    try:
        for body in bodies:
            cluster.apply(path_of(body), body)
        secrets = f"/api/v1/namespaces/{place.namespace}/secrets"
        (token, *_) = until(lambda: [
            s["data"]["token"] for s in cluster.list(secrets)
            if s["metadata"].get("annotations", {}).get("kubernetes.io/service-account.name") == "kaiflow"
            and "token" in (s.get("data") or {})
        ])  # fmt: skip
        settings = yaml.safe_load(Path(os.environ["KUBECONFIG"]).read_text())
        settings["users"][0]["user"] = {"token": base64.b64decode(token).decode()}
        path = tmp_path / "kubeconfig"
        path.write_text(yaml.safe_dump(settings))
        environment = {"KUBECONFIG": str(path)}
        log = tmp_path / "controller.log"
        with Controller(place.namespace, log, environment=environment, everywhere=True) as controller:
            place.apply(workspace(schedule={"cron": "0 3 * * 0"}))
            place.wait_state("Ready", seconds=60)
            place.delete()
            until(lambda: place.get() is None, 60)
            own = [e for e in controller.events("reconcile_failed") if place.namespace in str(e)]
            assert own == []
    finally:
        for body in bodies:
            if "namespace" not in body["metadata"]:
                cluster.delete(path_of(body))
