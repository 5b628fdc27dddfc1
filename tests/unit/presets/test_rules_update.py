"""What may change once a Workspace is there."""

import copy

import pytest

from presets.manifest import parse_workspace
from presets.rules_update import check_update


def refused(old, new):
    before, after = (parse_workspace(d, "f").workspace for d in (old, new))
    assert before is not None
    assert after is not None
    return [error.field for error in check_update(before, after)]


@pytest.mark.parametrize(
    ("path", "value", "field"),
    [
        ("resource.count", 3, "resource.count"),
        ("resource.labelSelector", {"matchLabels": {"app": "other"}}, "resource.labelSelector"),
        ("resource.instanceType", "Standard_NC6s_v3", "resource.instanceType"),
        ("resource.instanceType", ..., "resource.instanceType"),
        ("tuning.preset.name", "phi-4", "tuning.preset"),
        ("tuning.method", "lora", "tuning.method"),
        ("tuning.input.name", "other", "tuning.input.name"),
        ("resource", ..., "resource"),
    ],
)
def test_immutable_fields(workspace, put, path, value, field):
    assert refused(workspace, put(copy.deepcopy(workspace), path, value)) == [field]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("tuning.method", "QLORA"),
        ("resource.instanceType", "standard_nc24ads_a100_V4"),
        ("tuning.input.urls", ["https://data.example.com/new.parquet"]),
        ("tuning.output.image", "registry.example.com/team/adapter:0.0.2"),
        ("tuning.config", "my-config"),
        ("tuning.schedule", {"cron": "@daily"}),
    ],
)
def test_what_makes_a_new_revision_may_change(workspace, put, path, value):
    assert refused(workspace, put(copy.deepcopy(workspace), path, value)) == []


def test_an_instance_type_may_be_named_later(workspace, put):
    old = put(copy.deepcopy(workspace), "resource.instanceType", ...)
    assert refused(old, workspace) == []


def test_tuning_cannot_become_inference(workspace, put):
    new = put(put(copy.deepcopy(workspace), "tuning", ...), "inference", {"preset": {"name": "phi-4"}})
    assert refused(workspace, new) == ["tuning", "inference"]
