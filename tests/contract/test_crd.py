"""The CRD is structural, every field has its words, and the examples are valid to it."""

import json
from dataclasses import fields

import jsonschema
import pytest
import yaml
from pydantic.alias_generators import to_camel
from typer.testing import CliRunner

from controller.loading import load_one
from controller.main import app
from controller.mirror import mirror
from controller.planning import plan_status
from controller.runs import CRON_LABEL
from pipelines.nodes import node_id
from pipelines.plan import plan
from pipelines.workflow import compile_workflow
from presets.crd import crd, schema
from presets.crd_status import PLAN, STATUS
from presets.estimate import Estimate
from presets.levers import Levers
from presets.memory import MemoryNeed
from tests.conftest import ROOT

VERSIONS = ("v1alpha1", "v1beta1")


def validate(body, schema):
    """OpenAPI 3.0 words its bounds as JSON Schema's draft 4 does."""
    jsonschema.Draft4Validator(schema).validate(body)


def walked(node, path=""):
    """Yield (path, schema) of every part."""
    yield path, node
    for name, inner in node.get("properties", {}).items():
        yield from walked(inner, f"{path}.{name}" if path else name)
    if isinstance(node.get("items"), dict):
        yield from walked(node["items"], f"{path}[]")
    if isinstance(node.get("additionalProperties"), dict):
        yield from walked(node["additionalProperties"], f"{path}{{}}")


@pytest.mark.parametrize("version", VERSIONS)
def test_every_part_has_a_type_and_every_field_its_words(version):
    for path, node in walked(schema(version)):
        assert node.get("type"), path
        assert not {"$ref", "anyOf", "oneOf", "allOf", "const", "title"} & set(node), path
        plain = path in ("", "apiVersion", "kind", "metadata") or path.endswith(("[]", "{}"))
        assert plain or node.get("description"), path


@pytest.mark.parametrize("version", VERSIONS)
def test_defaults_are_valid_and_hold_no_nothing(version):
    for path, node in walked(schema(version)):
        if "default" in node:
            validate(node["default"], node)
            assert "null" not in json.dumps(node["default"]), path


def test_both_versions_have_one_schema_but_for_the_default_machine():
    one, other = schema("v1alpha1"), schema("v1beta1")
    assert one["properties"]["resource"]["properties"]["instanceType"].pop("default") == "Standard_NC24ads_A100_v4"
    assert one == other


def test_the_seeds_columns_are_printed():
    versions = {v["name"]: v for v in crd()["spec"]["versions"]}
    columns = [c["name"] for c in versions["v1alpha1"]["additionalPrinterColumns"] if not c.get("priority")]
    assert [name.upper() for name in columns] == [
        "INSTANCE",
        "RESOURCEREADY",
        "INFERENCEREADY",
        "WORKSPACEREADY",
        "AGE",
    ]
    assert [v["name"] for v in crd()["spec"]["versions"] if v["storage"]] == ["v1beta1"]
    assert crd()["spec"]["names"]["shortNames"] == ["wk", "wks"]


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.yaml")), ids=lambda p: p.stem)
def test_the_examples_are_valid(path):
    for body in yaml.safe_load_all(path.read_text()):
        if body["kind"] == "Workspace":
            validate(body, schema(body["apiVersion"].rpartition("/")[2]))


def undescribed(value, node, path="status"):
    """Yield what an API server would drop of the value: fields that the schema does not name."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key in node.get("properties", {}):
                yield from undescribed(inner, node["properties"][key], f"{path}.{key}")
            else:
                yield f"{path}.{key}"
    elif isinstance(value, list):
        for inner in value:
            yield from undescribed(inner, node["items"], f"{path}[]")


def told(**outputs):
    return {"parameters": [{"name": name.replace("_", "-"), "value": value} for name, value in outputs.items()]}


def ended(workflow):
    """Return the Workflow after a run in which everything was told that can be."""
    name, began, over = workflow["metadata"]["name"], "2026-11-25T00:00:00Z", "2026-11-25T01:00:00Z"
    refused = json.dumps([{"attempt": "x zone 1", "reason": "QuotaExceeded", "message": "No quota."}])
    outputs = {
        "fetch": told(cached="true"), "weights": {},
        "provision": told(nodes="n", instance_type="Standard_NC4as_T4_v3", attempts=refused),
        "tune": told(base_loss="3", tuned_loss="2", steps="3/4"),
        "push": told(image="r/a:1", digest="sha256:1", verdict="passed"), "deploy": told(endpoint="http://x"),
        "release": told(released="[]"),
    }  # fmt: skip
    nodes = {}
    for task, said in outputs.items():
        full = f"{name}.onExit" if task == "release" else f"{name}.{task}"
        nodes[node_id(name, full)] = {
            "name": full, "type": "Pod", "phase": "Succeeded", "startedAt": began, "finishedAt": over,
            "progress": "1/1", "message": "said", "outputs": said,
        }  # fmt: skip
    labels = {**workflow["metadata"]["labels"], CRON_LABEL: "x"}
    status = {"phase": "Succeeded", "startedAt": began, "finishedAt": over, "nodes": nodes}
    return {**workflow, "metadata": {**workflow["metadata"], "labels": labels}, "status": status}


def test_every_field_that_is_written_is_one_of_the_schema():
    example = load_one(ROOT / "examples" / "quickstart.yaml", None, private_hosts_allowed=True)
    planned = plan(example.recipe)
    workflow = compile_workflow(planned)
    training = {"loss": 3.0, "tokens_per_second": 9.0, "eta_seconds": 7, "trained_steps": 1, "total_steps": 4,
                "step_cut": "1 pack at a time"}  # fmt: skip
    attempts = {"attempt": "x", "waitsFor": "y", "refused": [{"attempt": "z", "reason": "Q", "message": "m"}]}
    now = "2026-11-25T00:00:00Z"
    running = {**workflow, "status": {"phase": "Running", "nodes": {
        node_id(workflow["metadata"]["name"], full := f"{workflow['metadata']['name']}.{task}"):
            {"name": full, "type": "Pod", "phase": "Running"} for task in ("provision", "tune")}}}  # fmt: skip
    dear = {"reason": "GpuTooSmall", "message": "It does not fit.", "fix": "Take a larger one."}
    written = [
        {**mirror(None, ended(workflow), training, 1, now), "plan": plan_status(planned)},
        {**mirror(None, running, training, 1, now, attempts), "plan": {"refused": dear}},
    ]
    assert {"cost", "provision", "training", "endpoint", "output"} <= set(written[0])
    assert "etaSeconds" in written[1]["training"]
    assert "waitsFor" in written[1]["provision"]
    for status in written:
        validate(status, STATUS)
        assert list(undescribed(status, STATUS)) == []
        for version in crd()["spec"]["versions"]:
            assert list(undescribed(status, version["schema"]["openAPIV3Schema"]["properties"]["status"])) == []


@pytest.mark.parametrize(("kind", "name"), [(MemoryNeed, "memoryBytes"), (Levers, "stepCut"), (Estimate, "estimate")])
def test_the_plans_figures_are_all_described(kind, name):
    extra = {"memoryBytes": {"total"}}.get(name, set())
    assert set(PLAN["properties"][name]["properties"]) == {to_camel(f.name) for f in fields(kind)} | extra


def test_the_command_prints_it():
    printed = CliRunner().invoke(app, ["crds"])
    assert yaml.safe_load(printed.stdout) == json.loads(json.dumps(crd()))


def test_the_status_tells_who_has_set_what_and_no_address():
    example = load_one(ROOT / "examples" / "quickstart.yaml", None, private_hosts_allowed=True)
    values = plan_status(plan(example.recipe))["values"]
    assert "training.max_steps = 32 (training config)" in values
    assert "evaluation.gate = warn (workspace)" in values
    assert not [value for value in values if "://" in value or "(default)" in value]
