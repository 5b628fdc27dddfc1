"""The CRD on a real API server: applied, explained, listed; the examples stored as they are."""

import json
import re

import pytest
import yaml

from presets.crd import NAME, schema
from presets.errors import ConfigError
from tests.cluster.conftest import CRDS
from tests.cluster.operator_process import until
from tests.conftest import ROOT
from tests.contract.test_cel_rules import ACCEPTED, ACCEPTED_UPDATES, FORBIDDEN, REFUSED, SERVED, serving

WORKSPACES = "/apis/kaito.sh/v1beta1/namespaces/default/workspaces"


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


@pytest.fixture
def rules(knows_cel, workspaces):
    """A server that knows the rules."""
    if not knows_cel:
        pytest.skip("the API server does not know x-kubernetes-validations")
    return f"{workspaces}/{{name}}"


@pytest.fixture
def stored(cluster, rules):
    """Apply an object, and take it away at the end."""
    names = []

    def apply(body):
        names.append(body["metadata"]["name"])
        return cluster.apply(rules.format(name=names[-1]), body)

    yield apply
    for name in names:
        cluster.delete(rules.format(name=name))


@pytest.mark.parametrize(("edits", "field"), REFUSED, ids=[f"{field}-{n}" for n, (_, field) in enumerate(REFUSED)])
def test_what_the_rules_refuse_the_api_server_refuses_and_names_the_field(cluster, rules, edited, edits, field):
    body = edited(edits)
    with pytest.raises(ConfigError, match=re.escape(field)):
        cluster.apply(rules.format(name=body["metadata"]["name"]), body, dry_run=True)


@pytest.mark.parametrize("edits", [*ACCEPTED, *(serving(**body) for body in SERVED)], ids=range(len(ACCEPTED + SERVED)))
def test_what_is_well_formed_the_api_server_takes(cluster, rules, edited, edits):
    body = edited(edits)
    assert cluster.apply(rules.format(name=body["metadata"]["name"]), body, dry_run=True)["kind"] == "Workspace"


@pytest.mark.parametrize(("before", "after", "field"), FORBIDDEN, ids=[field for *_, field in FORBIDDEN])
def test_what_may_not_change_the_api_server_refuses_at_the_field(cluster, stored, edited, before, after, field):
    stored(edited(before))
    with pytest.raises(ConfigError, match=re.escape(field)):
        stored(edited(after))


@pytest.mark.parametrize(("before", "after"), ACCEPTED_UPDATES)
def test_what_may_change_the_api_server_takes(cluster, stored, edited, before, after):
    stored(edited(before))
    assert stored(edited(after))["metadata"]["generation"] == 2


def test_the_api_server_publishes_the_words_that_kubectl_explains(cluster, workspaces):
    said = cluster.text("/openapi/v2")
    if not said:
        pytest.skip("an API server for custom resources alone publishes no schema")
    name = "sh.kaito.v1beta1.Workspace"
    # A new CRD is published a little later.
    published = until(lambda: json.loads(cluster.text("/openapi/v2"))["definitions"].get(name), 60)
    body, described = published["properties"], schema("v1beta1")["properties"]
    for part in ("tuning", "status"):
        assert descriptions(body[part]) == descriptions(described[part])


def descriptions(part):
    """Return the words of each field below, by its path."""
    words = {"": part.get("description")}
    inside = {**part.get("properties", {}), **({"[]": part["items"]} if "items" in part else {})}
    for name, field in inside.items():
        words |= {f"{name}.{path}": said for path, said in descriptions(field).items()}
    return words
