"""The plan, its names, and requests that Argo does not misread."""

import json
from dataclasses import replace

import pytest

from pipelines.names import CRON_NAME_MAX, cron_name, run_name
from pipelines.nodes import node_id
from pipelines.plan import Placement, plan, request_json, serving_place, told
from pipelines.substitution import UnresolvedError, fill, seconds
from pipelines.support import check_supported
from pipelines.templates import PULL_SECRETS_FOLDER
from pipelines.workflow import compile_workflow
from presets.errors import InvalidInput
from steps.contract import Request


def test_no_machine_is_asked_for_before_the_data_is_known_to_be_good(workspace, recipe_of):
    steps = {s.verb: s.after for s in plan(recipe_of(workspace)).steps}
    assert steps == {
        "fetch": (), "provision": ("fetch",), "weights": ("fetch",), "tune": ("provision", "weights"),
        "push": ("tune",), "deploy": ("push",),
    }  # fmt: skip


def test_the_node_is_given_back_right_after_the_training_where_nothing_serves(workspace, put, recipe_of):
    put(workspace, "tuning.deploy", {"enabled": False})
    steps = {s.verb: s.after for s in plan(recipe_of(workspace)).steps}
    assert steps["release"] == ("tune",)
    assert "deploy" not in steps


def test_the_run_is_named_after_workspace_and_revision(workspace, put, recipe_of):
    recipe = recipe_of(put(workspace, "metadata.name", "a" * 63))
    assert len(run_name(recipe)) <= 63
    assert run_name(recipe).endswith(recipe.revision)


def test_long_names_that_begin_alike_have_schedules_and_runs_of_their_own(workspace, put, recipe_of):
    names = ["a" * 60 + ending for ending in "bc"]
    assert len({cron_name(name) for name in names}) == 2
    assert {len(cron_name(name)) for name in names} == {CRON_NAME_MAX}
    assert len({run_name(replace(recipe_of(workspace), name=name)) for name in names}) == 2
    assert cron_name("tune") == "tune"


def test_a_request_is_what_the_step_reads(workspace, recipe_of):
    recipe = recipe_of(workspace)
    tune = next(s for s in plan(recipe).steps if s.verb == "tune")
    scope = {
        "workflow.parameters.store": "layout:/x", "workflow.parameters.target": "local",
        "inputs.parameters.dataset": "sha256:a", "inputs.parameters.weights": "sha256:b",
        "inputs.parameters.published": "",
    }  # fmt: skip
    request = Request.model_validate_json(fill(request_json(plan(recipe), tune), scope))
    assert request.inputs == {"dataset": "sha256:a", "weights": "sha256:b", "published": ""}
    assert (request.store, request.target) == ("layout:/x", "local")


def test_braces_of_the_users_own_are_not_tags(workspace, recipe_of):
    template = "{% for m in messages %}{{ m['content'] }}{{eos_token}}{% endfor %}"
    recipe = recipe_of(workspace, ModelConfig={"chat_template": template})
    weights = next(s for s in plan(recipe).steps if s.verb == "weights")
    text = request_json(plan(recipe), weights)
    tags = {f"workflow.parameters.{name}": "x" for name in ("store", "target", "stage")}
    assert json.loads(fill(text, tags))["recipe"]["model"]["chat_template"] == template


def test_a_step_is_told_only_what_it_depends_on(workspace, recipe_of):
    recipe = recipe_of(workspace)
    assert set(told(plan(recipe), "fetch")) == {"data", "audit", "model", "training"}  # rows are measured
    assert "evaluation" not in told(plan(recipe), "weights")


def test_node_ids_are_argos():
    assert node_id("wf", "wf") == "wf"
    assert node_id("wf", "foobar") == "wf-3214735720"  # FNV-1a's published test vector, 0xbf9cf968


def test_a_tag_without_a_value_stops_the_template():
    with pytest.raises(UnresolvedError, match=r"failed to resolve \{\{tasks\.x\}\}"):
        fill({"a": ["{{tasks.x}}"]}, {})
    assert fill({"a": ["{{ x }}-{{x}}", 3]}, {"x": "1"}) == {"a": ["1-1", 3]}


@pytest.mark.parametrize(
    ("text", "value"), [("5s", 5), ("1h30m", 5400), ("250ms", 0.25), (30, 30), ("2", 2), ("", 9), (None, 9)]
)
def test_durations(text, value):
    assert seconds(text, 9) == value


def fetch_template(recipe):
    workflow = compile_workflow(plan(recipe))
    return next(t for t in workflow["spec"]["templates"] if t["name"] == "fetch"), workflow


def test_the_pull_secrets_of_a_data_image_are_mounted_one_by_one(workspace, put, recipe_of):
    put(workspace, "tuning.input", {"image": "registry.example.com/data:1", "imagePullSecrets": ["a", "b"]})
    template, _ = fetch_template(recipe_of(workspace))
    mounted = {v["name"]: v["mountPath"] for v in template["container"]["volumeMounts"]}
    assert {k: v for k, v in mounted.items() if k.startswith("pull-")} == {
        "pull-0": f"{PULL_SECRETS_FOLDER}/0", "pull-1": f"{PULL_SECRETS_FOLDER}/1",
    }  # fmt: skip
    secrets = [v["secret"] for v in template["volumes"] if v["name"].startswith("pull-")]
    assert [secret["secretName"] for secret in secrets] == ["a", "b"]


def test_a_gated_models_token_reaches_the_step_that_measures_rows(workspace, put, recipe_of):
    put(workspace, "tuning.preset.presetOptions", {"modelAccessSecret": "hub-token"})
    template, _ = fetch_template(recipe_of(workspace))
    assert [v["name"] for v in template["container"]["env"]] == ["HF_TOKEN"]


@pytest.mark.parametrize(("cache", "reads"), [(None, True), ("registry.example.com/cache", False)])
def test_a_gated_models_token_reaches_whoever_takes_the_weights_from_the_hub(workspace, put, recipe_of, cache, reads):
    put(workspace, "tuning.preset.presetOptions", {"modelAccessSecret": "hub-token"})
    made = plan(recipe_of(workspace), Placement(cache=cache))
    tune = next(t for t in compile_workflow(made)["spec"]["templates"] if t["name"] == "tune")
    assert ("HF_TOKEN" in [v["name"] for v in tune["container"].get("env", ())]) == reads
    assert serving_place(made).access_secret == ("hub-token" if reads else None)


@pytest.mark.parametrize(
    ("placement", "readers"),
    [(Placement(), {"weights", "tune"}), (Placement(cache="registry.example.com/cache"), {"weights"})],
    ids=["nobody keeps them", "a cache keeps them"],
)
def test_secrets_of_the_weights_image_are_where_it_is_read(workspace, put, recipe_of, placement, readers):
    options = {"image": f"r.example.com/weights@sha256:{'1' * 64}", "imagePullSecrets": ["a", "b"]}
    put(workspace, "tuning.preset.presetOptions", options)
    made = plan(recipe_of(workspace), placement)
    found = {}
    for template in compile_workflow(made)["spec"]["templates"]:
        secrets = [v["secret"]["secretName"] for v in template.get("volumes", ()) if v["name"].startswith("pull-")]
        found |= {template["name"]: secrets} if secrets else {}
    assert found == {reader: ["a", "b"] for reader in readers}
    assert serving_place(made).weights_secrets == (("a", "b") if "tune" in readers else ())


def test_an_image_that_is_mounted_for_its_weights_is_pulled_by_the_kubelet_with_its_secrets(workspace, put, recipe_of):
    options = {"image": f"r.example.com/weights@sha256:{'1' * 64}", "imagePullSecrets": ["a"]}
    put(workspace, "tuning.preset.presetOptions", options)
    made = plan(recipe_of(workspace), Placement(image_volumes=True))
    assert compile_workflow(made)["spec"]["imagePullSecrets"] == [{"name": "a"}]
    assert serving_place(made).pull_secrets == ("a",)


def test_labels_of_every_pod_are_on_every_pod(workspace, recipe_of):
    labels = {"azure.workload.identity/use": "true"}
    made = plan(recipe_of(workspace), Placement(pod_labels=labels))
    containers = [t for t in compile_workflow(made)["spec"]["templates"] if "container" in t]
    assert all(labels.items() <= t["metadata"]["labels"].items() for t in containers)
    assert serving_place(made).pod_labels == labels


@pytest.mark.parametrize(
    ("source", "refused"),
    [({"hostPath": {"path": "/data"}}, False), ({"nfs": {"server": "files", "path": "/data"}}, True)],
)
def test_of_volumes_only_a_host_path_is_read_on_one_machine(workspace, put, recipe_of, source, refused):
    put(workspace, "tuning.input", {"volumeSource": source})
    _, workflow = fetch_template(recipe_of(workspace))
    if not refused:
        check_supported(workflow)
        return
    with pytest.raises(InvalidInput, match="nfs is not supported on one machine"):
        check_supported(workflow)


def test_thresholds_are_resolved_with_their_origin(workspace, put, recipe_of):
    before = recipe_of(workspace)
    put(workspace, "metadata.annotations", {"kaiflow.dev/max-bad-rows": "2%", "kaiflow.dev/max-dataset-bytes": "1Gi"})
    recipe = recipe_of(workspace)
    assert (recipe.audit.max_bad_rows, recipe.audit.max_bytes, recipe.audit.near_duplicates) == (
        0.02,
        1 << 30,
        "remove",
    )
    assert (recipe.origins["audit.max_bad_rows"], recipe.origins["audit.near_duplicates"]) == ("workspace", "default")
    assert recipe.revision != before.revision


def test_a_volume_that_kubernetes_does_not_know_is_refused_with_its_field(workspace, put, recipe_of):
    put(workspace, "tuning.input", {"volumeSource": {"nfs": {"server": "files"}}})
    with pytest.raises(InvalidInput) as caught:
        compile_workflow(plan(recipe_of(workspace)))
    assert [error.field for error in caught.value.errors] == ["tuning.input.volumeSource.nfs.path"]


@pytest.mark.parametrize(
    ("sku", "gpus"), [("Standard_NC24ads_A100_v4", 1), ("standard_nc48ads_a100_v4", 2), ("Standard_Unheard_v9", 1)]
)
def test_the_training_asks_for_every_gpu_of_its_machine_and_memory_to_share(workspace, put, recipe_of, sku, gpus):
    body = compile_workflow(plan(recipe_of(put(workspace, "resource.instanceType", sku))))
    tune = next(t for t in body["spec"]["templates"] if t["name"] == "tune")
    assert tune["container"]["resources"]["limits"]["nvidia.com/gpu"] == str(gpus)
    shared = [v for v in tune["volumes"] if v["name"] == "shm"]
    assert shared == ([{"name": "shm", "emptyDir": {"medium": "Memory"}}] if gpus > 1 else [])
    check_supported(body)
