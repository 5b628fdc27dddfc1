"""The CRD on a real API server: applied, explained, listed; the examples stored as they are."""

import re

import pytest
import yaml

from presets.crd import NAME
from presets.errors import ConfigError
from tests.cluster.conftest import FIRST_WITH_CEL, minor_version
from tests.conftest import ROOT
from tests.contract.test_cel_rules import REFUSED

WORKSPACES = "/apis/kaito.sh/v1beta1/namespaces/default/workspaces"
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


@pytest.fixture
def workspaces(kinds):
    """The path of Workspaces on a cluster that knows them."""
    return WORKSPACES


def test_its_schema_is_structural_to_the_api_server(cluster, workspaces):
    conditions = {c["type"]: c for c in cluster.get(f"{CRDS}/{NAME}")["status"]["conditions"]}
    assert "NonStructuralSchema" not in conditions
    assert conditions["NamesAccepted"]["status"] == "True"


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.yaml")), ids=lambda p: p.stem)
def test_examples_are_stored_and_come_back_with_defaults(cluster, workspaces, path):
    for body in yaml.safe_load_all(path.read_text()):
        if body["kind"] != "Workspace":
            continue
        name = body["metadata"]["name"]
        body["metadata"].pop("namespace", None)
        stored = cluster.apply(f"/apis/{body['apiVersion']}/namespaces/default/workspaces/{name}", body)
        try:
            assert stored["tuning"]["deploy"]["replicas"] == body["tuning"].get("deploy", {}).get("replicas", 1)
            assert stored["tuning"]["preset"]["accessMode"] == "public"
            assert body["tuning"]["input"].items() <= stored["tuning"]["input"].items()
        finally:
            cluster.delete(f"{workspaces}/{name}")


def test_a_status_is_written_beside_the_object_and_printed(cluster, workspaces):
    body = yaml.safe_load((ROOT / "examples/seed-phi-3.yaml").read_text())
    name = body["metadata"]["name"]
    stored = cluster.apply(f"/apis/{body['apiVersion']}/namespaces/default/workspaces/{name}", body)
    try:
        now = "2026-11-25T00:00:00Z"
        ready = {"type": "ResourceReady", "status": "True", "reason": "Ready", "message": "", "lastTransitionTime": now}
        written = cluster.patch(f"{workspaces}/{name}/status", {"status": {"state": "Running", "conditions": [ready]}})
        assert written["status"]["conditions"] == [ready]
        assert written["metadata"]["generation"] == stored["metadata"]["generation"]
    finally:
        cluster.delete(f"{workspaces}/{name}")


@pytest.mark.parametrize(("edits", "field"), REFUSED, ids=[f"{field}-{n}" for n, (_, field) in enumerate(REFUSED)])
def test_what_the_rules_refuse_the_api_server_refuses(cluster, workspaces, workspace, put, edits, field):
    if minor_version(cluster) < FIRST_WITH_CEL:
        pytest.skip("the API server does not know x-kubernetes-validations")
    for path, value in edits.items():
        put(workspace, path, value)
    with pytest.raises(ConfigError, match=re.escape(field)):
        cluster.apply(f"{workspaces}/{workspace['metadata']['name']}", workspace, dry_run=True)
