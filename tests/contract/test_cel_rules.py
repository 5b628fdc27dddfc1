"""Every rule of the CRD has an object that it takes and one that it refuses; the command line says the same of both.

Evaluated offline by cel-python, as an API server evaluates ``x-kubernetes-validations``: on the part that the rule
stands on, where that part is there; rules with ``oldSelf`` at updates alone.
"""

import math
import re
from typing import Any

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

ADAPTER = {"name": "a", "image": "r.example.com/a:1"}


def serving(**inference):
    """Return the edits that make the Workspace one that serves."""
    body = {"preset": {"name": "phi-3-mini-128k-instruct"}, **inference}
    return {"tuning": ..., "inference": {key: value for key, value in body.items() if value is not ...}}


# At create: what is changed in a Workspace that is accepted -> the field that is named.
REFUSED = [
    ({"tuning": ...}, "tuning"),
    ({"inference": {"preset": {"name": "phi-3-mini-128k-instruct"}}}, "inference"),
    ({"resource.count": 2}, "resource.count"),
    ({"resource.instanceType": "a("}, "resource.instanceType"),
    ({"resource.instanceType": "g5+"}, "resource.instanceType"),
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
    ({"tuning.deploy": {"runtime": "vllm"}}, "tuning.deploy.runtime"),
    ({"metadata.name": "1-phi"}, "metadata.name"),
    ({"metadata.name": "a" * 64}, "metadata.name"),
    ({"tuning.preset.name": "org/model/more"}, "tuning.preset.name"),
    ({"tuning.preset.accessMode": "private"}, "tuning.preset.presetOptions.image"),
    ({"tuning.preset.presetOptions": {"image": "R.example.com/Weights:1"}}, "tuning.preset.presetOptions.image"),
    (
        {"tuning.preset.presetOptions": {"modelAccessSecret": "HF_TOKEN"}},
        "tuning.preset.presetOptions.modelAccessSecret",
    ),
    (
        {"tuning.preset.presetOptions": {"imagePullSecrets": ["ok", "not ok"]}},
        "tuning.preset.presetOptions.imagePullSecrets",
    ),
    ({"tuning.config": "My_Config"}, "tuning.config"),
    ({"tuning.input": {"urls": ["https://data.example.com/a", "ftp://data.example.com/b"]}}, "tuning.input.urls"),
    ({"tuning.input": {"urls": ["https://data.example.com/a b"]}}, "tuning.input.urls"),
    ({"tuning.input": {"urls": ["HTTPS://data.example.com/a"]}}, "tuning.input.urls"),
    ({"tuning.input": {"image": "r.example.com/Data:1"}}, "tuning.input.image"),
    ({"tuning.input": {"image": "r.example.com/data:1", "imagePullSecrets": ["A"]}}, "tuning.input.imagePullSecrets"),
    ({"tuning.schedule": {"cron": "0 3 * *"}}, "tuning.schedule.cron"),
    ({"tuning.schedule": {"cron": "weekly"}}, "tuning.schedule.cron"),
    ({"tuning.schedule": {"cron": "@weekly", "timezone": "Europe Prague"}}, "tuning.schedule.timezone"),
    (serving(template={}), "inference"),
    (serving(preset=...), "inference"),
    (serving(preset={"name": "a/b/c"}), "inference.preset.name"),
    (serving(preset={"name": "phi-4", "accessMode": "private"}), "inference.preset.presetOptions.image"),
    (
        serving(preset={"name": "phi-4", "presetOptions": {"modelAccessSecret": "A"}}),
        "inference.preset.presetOptions.modelAccessSecret",
    ),
    (serving(preset={"name": "phi-4", "presetOptions": {"image": "R/A"}}), "inference.preset.presetOptions.image"),
    (
        serving(preset={"name": "phi-4", "presetOptions": {"imagePullSecrets": ["A"]}}),
        "inference.preset.presetOptions.imagePullSecrets",
    ),
    (serving(adapters=[{"source": {**ADAPTER, "name": f"a{n}"}} for n in range(11)]), "inference.adapters"),
    (serving(adapters=[{}]), "inference.adapters"),
    (serving(adapters=[{"source": {"image": "r.example.com/a:1"}}]), "inference.adapters"),
    (serving(adapters=[{"source": {**ADAPTER, "name": "My Adapter"}}]), "inference.adapters"),
    (serving(adapters=[{"source": ADAPTER}, {"source": ADAPTER}]), "inference.adapters"),
    (serving(adapters=[{"source": {"name": "a", "urls": ["https://x.example.com/a"]}}]), "inference.adapters"),
    (serving(adapters=[{"source": {**ADAPTER, "volumeSource": {"emptyDir": {}}}}]), "inference.adapters"),
    (serving(adapters=[{"source": {"name": "a"}}]), "inference.adapters"),
    (serving(adapters=[{"source": {"name": "a", "image": "R.example.com/A:1"}}]), "inference.adapters"),
    (serving(adapters=[{"source": ADAPTER, "strength": "much"}]), "inference.adapters"),
]

# At create: what breaks no rule, at the edges of what rules look at.
ACCEPTED = [
    {"metadata.name": "a" * 63},
    {"tuning.preset.presetOptions": {"image": "localhost:5000/weights@sha256:" + "0" * 64}},
    {
        "tuning.preset.presetOptions": {
            "image": "r.example.com/w:1@sha256:" + "0" * 64,
            "imagePullSecrets": ["a.b", "c"],
        }
    },
    {"tuning.preset.name": "HuggingFaceTB/SmolLM2-360M-Instruct"},
    {"tuning.input": {"urls": ["hf://datasets/a/b/c.parquet", "s3://bucket/x.jsonl#sha256=" + "0" * 64]}},
    {"tuning.schedule": {"cron": "*/5 0-23/2 1,15 JAN-DEC MON-FRI", "timezone": "America/Argentina/Buenos_Aires"}},
    {"tuning.schedule": {"cron": "@every 12h"}},
    {"tuning.schedule": {"cron": "0\t3 * * 0"}},
    {"tuning.input": {"image": "[fd00::1]:5000/data:1"}},
    {"resource.instanceType": "p4d.24xlarge"},
    {"tuning.schedule": {"cron": "@daily", "timezone": "Etc/GMT+5"}},
]
SERVED = [
    {},
    {"adapters": []},
    {"adapters": [{"source": {"name": f"a.{n}", "image": f"r.example.com/a:{n}"}} for n in range(10)]},
    {"adapters": [{"source": {"name": "a", "volumeSource": {"emptyDir": {}}}}]},
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
    ({}, {"resource.instanceType": ...}, "resource.instanceType"),
    ({}, {"tuning.preset.name": "phi-4"}, "tuning.preset"),
    ({}, {"tuning.method": "lora"}, "tuning.method"),
    ({"tuning.input.name": "a"}, {"tuning.input.name": "b"}, "tuning.input.name"),
    (serving(), serving(preset={"name": "phi-4"}), "inference.preset"),
    (serving(preset=..., template={}), serving(), "inference.template"),
]

ACCEPTED_UPDATES = [
    ({}, {"resource.instanceType": "standard_nc24ADS_a100_v4"}),
    ({"resource.instanceType": ...}, {}),
    ({"resource.instanceType": ""}, {}),
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


@pytest.mark.parametrize("edits", [*ACCEPTED, *(serving(**body) for body in SERVED)], ids=range(len(ACCEPTED + SERVED)))
def test_what_is_well_formed_is_accepted_by_both(edited, edits):
    document = edited(edits)
    assert refused_by_cel(document) == []
    assert check(parsed(document), AROUND) == ()


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


MATCHES = re.compile(r"([\w.]+)\.matches\(('[^']*'|[^)]*)\)")
LOOPS = re.compile(r"self\.(\w+)\.(?:all|exists|exists_one)\((\w+),")
MOST_COST = 10_000_000  # an API server's limit of one rule (k8s.io/apiserver/pkg/cel: StaticEstimatedCostLimit)
REQUEST_BYTES = 3 << 20  # what a text without a bound could be at most


def schema_at(schema, path):
    for name in filter(None, path.split(".")):
        schema = schema["properties"][name]
    return schema


def bytes_of(schema: dict[str, Any]) -> int:
    """Return how long a text could be: a bound is in characters, of four bytes each."""
    return 4 * int(schema["maxLength"]) if "maxLength" in schema else REQUEST_BYTES


def cost(rule, whole):
    """Return what the rule's loops and matches could cost, as k8s.io/apiserver/pkg/cel estimates it."""
    here = schema_at(whole, rule.at)
    lists: dict[str, Any] = {}
    times = 1
    for field, variable in LOOPS.findall(rule.rule):
        schema = schema_at(here, field)
        lists[variable] = schema.get("items") or {"type": "string"}  # of a map: its keys
        times *= schema.get("maxItems", schema.get("maxProperties", REQUEST_BYTES))
    total = times
    for subject, pattern in MATCHES.findall(rule.rule):
        first, _, path = subject.partition(".")
        of_ours = not subject.startswith("self.metadata.")  # else Kubernetes' own, without a bound
        schema = schema_at(lists.get(first, here), path) if of_ours else {"type": "string"}
        assert schema["type"] == "string", subject
        length = len(pattern) if pattern.startswith("'") else bytes_of(schema)  # oldSelf's own text
        total += times * math.ceil(0.1 * bytes_of(schema)) * math.ceil(0.25 * length)
    return total


@pytest.mark.parametrize("version", crd()["spec"]["versions"], ids=lambda version: version["name"])
def test_what_a_rule_could_cost_is_bounded(version):
    """An API server refuses a CRD of whose rules one could cost too much; texts and lists without a bound do."""
    whole = version["schema"]["openAPIV3Schema"]
    costs = {rule.message: cost(rule, whole) for rule in RULES}
    assert max(costs.values()) < MOST_COST / 2, max(costs, key=lambda message: costs[message])
    assert sum(costs.values()) < 10 * MOST_COST / 2  # of all together
