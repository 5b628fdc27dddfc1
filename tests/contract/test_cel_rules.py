"""Every rule of the CRD has an object that it takes and one that it refuses; the command line says the same of both.

Evaluated offline by cel-python, as an API server evaluates ``x-kubernetes-validations``: on the part that the rule
stands on, where that part is there; rules with ``oldSelf`` at updates alone.
"""

import copy
import re

import celpy
import pytest
from celpy.adapter import json_to_cel

from presets.cel_rules import RULES
from presets.crd import crd
from presets.manifest import parse_workspace
from presets.rules import check
from presets.rules_update import check_update
from tests.unit.presets.test_rules import AROUND

ENVIRONMENT = celpy.Environment()
PROGRAMS = {rule: ENVIRONMENT.program(ENVIRONMENT.compile(rule.rule)) for rule in RULES}
EVERYTHING = {"resource": ..., "tuning": ..., "inference": ...}

# At create: what is changed in a Workspace that is accepted -> the field that is named.
REFUSED = [
    ({"tuning": ...}, "tuning"),
    ({"inference": {"preset": {"name": "phi-3-mini-128k-instruct"}}}, "inference"),
    ({"resource.count": 2}, "resource.count"),
    ({"resource.partition": {"mode": "mig"}}, "resource.partition"),
    (
        {"resource.labelSelector.matchExpressions": [{"key": "a", "operator": "NotIn", "values": ["b"]}]},
        "resource.labelSelector.matchExpressions",
    ),
    (
        {"resource.labelSelector.matchExpressions": [{"key": "a", "operator": "In", "values": ["b", "c"]}]},
        "resource.labelSelector.matchExpressions",
    ),
    ({"resource.labelSelector.matchLabels": {"kaito.sh/workspace": "x"}}, "resource.labelSelector.matchLabels"),
    ({"tuning.preset": ...}, "tuning.preset"),
    ({"tuning.method": ...}, "tuning.method"),
    ({"tuning.method": "full"}, "tuning.method"),
    ({"tuning.input": ...}, "tuning.input"),
    ({"tuning.output": ...}, "tuning.output"),
    ({"tuning.input": {}}, "tuning.input"),
    ({"tuning.input": {"urls": ["https://data.example.com/a"], "image": "r.example.com/a:1"}}, "tuning.input"),
    ({"tuning.output": {"imagePushSecret": "x"}}, "tuning.output"),
    ({"tuning.output.volumeSource": {"emptyDir": {}}}, "tuning.output"),
    ({"tuning.output.image": "registry.example.com/Team/Adapter:1"}, "tuning.output.image"),
    ({"tuning.output.image": "r.example.com/a@sha256:" + "0" * 64}, "tuning.output.image"),
    ({"tuning.output.image": "r.example.com/a:kaiflow-run-1"}, "tuning.output.image"),
    ({"tuning.output.image": "r.example.com/a:kaiflow-prune"}, "tuning.output.image"),
    ({"tuning.output.imagePushSecret": ...}, "tuning.output.imagePushSecret"),
    ({"tuning.output.imagePushSecret": "Not_A_Name"}, "tuning.output.imagePushSecret"),
    ({"tuning.evaluation": {"gate": "enforce", "split": 0.0}}, "tuning.evaluation.split"),
]

# At update: old and new -> the field that is named.
FORBIDDEN = [
    ({}, {"tuning": ..., "inference": {"preset": {"name": "phi-3-mini-128k-instruct"}}}, "tuning"),
    ({}, {"tuning": ..., "inference": {"preset": {"name": "phi-3-mini-128k-instruct"}}}, "inference"),
    ({}, {"resource": ...}, "resource"),
    ({"resource.count": 1}, {"resource.count": 2}, "resource.count"),
    ({}, {"resource.labelSelector.matchLabels": {"app": "other"}}, "resource.labelSelector"),
    ({}, {"resource.partition": {"mode": "mig"}}, "resource.partition"),
    ({}, {"resource.instanceType": "Standard_NC48ads_A100_v4"}, "resource.instanceType"),
    ({}, {"tuning.preset.name": "phi-4"}, "tuning.preset"),
    ({}, {"tuning.method": "lora"}, "tuning.method"),
    ({"tuning.input.name": "a"}, {"tuning.input.name": "b"}, "tuning.input.name"),
]

ACCEPTED_UPDATES = [
    ({}, {"resource.instanceType": "standard_nc24ADS_a100_v4"}),
    ({}, {"tuning.method": "QLoRA"}),
    ({}, {"tuning.output.image": "registry.example.com/team/adapter:0.0.2"}),
    ({}, {"tuning.input": {"urls": ["https://data.example.com/new.parquet"]}}),
    ({}, {"tuning.schedule": {"cron": "0 3 * * 0"}}),
]


def part(body, path):
    for name in path.split(".") if path else ():
        if not isinstance(body, dict) or name not in body:
            return None
        body = body[name]
    return body


def refused_by_cel(new, old=None):
    """Return the rules that refuse an object, or the update to it."""
    found = []
    for rule, program in PROGRAMS.items():
        here, before = part(new, rule.at), part(old, rule.at) if old else None
        if here is None or (rule.of_updates and before is None):
            continue
        scope = {"self": json_to_cel(here), "oldSelf": json_to_cel(before)}
        if not program.evaluate(scope):
            found.append(rule)
    return found


def parsed(document):
    found = parse_workspace(document, "file.yaml")
    workspace = found.workspace or found.rest
    assert workspace is not None
    return workspace


def named(field, fields):
    """Whether the field, or one inside it, is among those that are named."""
    return any(other == field or other.startswith((f"{field}.", f"{field}[")) for other in fields)


@pytest.fixture
def edited(workspace, put):
    def of(edits):
        document = copy.deepcopy(workspace)
        for path, value in edits.items():
            put(document, path, value)
        return document

    return of


def test_what_breaks_no_rule_is_accepted_by_both(workspace):
    assert refused_by_cel(workspace) == []
    assert refused_by_cel(workspace, workspace) == []
    assert check(parsed(workspace), AROUND) == ()


@pytest.mark.parametrize(("edits", "field"), REFUSED, ids=[f"{field}-{n}" for n, (_, field) in enumerate(REFUSED)])
def test_what_is_refused_at_create_is_refused_by_both_at_the_same_field(edited, edits, field):
    document = edited(edits)
    refused = refused_by_cel(document)
    assert field in {rule.path for rule in refused}
    assert all(rule.message for rule in refused)
    assert named(field, [error.field for error in check(parsed(document), AROUND)])


@pytest.mark.parametrize(("before", "after", "field"), FORBIDDEN, ids=[field for *_, field in FORBIDDEN])
def test_what_may_not_change_is_refused_by_both_at_the_same_field(edited, before, after, field):
    old, new = edited(before), edited(after)
    assert field in {rule.path for rule in refused_by_cel(new, old)}
    assert named(field, [error.field for error in check_update(parsed(old), parsed(new))])


@pytest.mark.parametrize(("before", "after"), ACCEPTED_UPDATES)
def test_what_may_change_is_accepted_by_both(edited, before, after):
    old, new = edited(before), edited(after)
    assert refused_by_cel(new, old) == []
    assert check_update(parsed(old), parsed(new)) == ()


def test_every_rule_refuses_one_of_these(edited):
    seen = {rule for edits, _ in REFUSED for rule in refused_by_cel(edited(edits))}
    seen |= {rule for before, after, _ in FORBIDDEN for rule in refused_by_cel(edited(after), edited(before))}
    assert [rule.message for rule in RULES if rule not in seen] == []


MATCHES = re.compile(r"self\.(\w+)\.matches\(")
LOOPS = re.compile(r"self\.(\w+)\.(?:all|exists)\(")


def schema_at(version, path):
    found = version["schema"]["openAPIV3Schema"]
    for name in path.split("."):
        found = found["properties"][name]
    return found


@pytest.mark.parametrize("version", crd()["spec"]["versions"], ids=lambda version: version["name"])
def test_what_a_rule_could_cost_is_bounded(version):
    """An API server refuses a CRD of whose rules one could cost too much; texts and lists without a bound do."""
    for rule in RULES:
        for field in MATCHES.findall(rule.rule):
            assert schema_at(version, f"{rule.at}.{field}")["maxLength"] <= 512, rule.path
        for field in LOOPS.findall(rule.rule):
            schema = schema_at(version, f"{rule.at}.{field}")
            assert schema.get("maxItems", schema.get("maxProperties", 10**6)) <= 64, rule.path
