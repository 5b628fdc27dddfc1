"""The CRD is structural, every field has its words, and the examples are valid to it."""

import json

import jsonschema
import pytest
import yaml
from typer.testing import CliRunner

from controller.loading import load_one
from controller.main import app
from controller.mirror import mirror
from pipelines.plan import plan
from pipelines.workflow import compile_workflow
from presets.crd import crd, schema
from presets.crd_status import STATUS
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


def test_what_the_mirror_writes_is_a_status():
    example = load_one(ROOT / "examples" / "quickstart.yaml", None, private_hosts_allowed=True)
    workflow = compile_workflow(plan(example.recipe))
    validate(mirror(None, {**workflow, "status": {"phase": "Running"}}, None, 1, "2026-11-25T00:00:00Z"), STATUS)


def test_the_command_prints_it():
    printed = CliRunner().invoke(app, ["crds"])
    assert yaml.safe_load(printed.stdout) == json.loads(json.dumps(crd()))
