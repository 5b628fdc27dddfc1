"""What Argo 4.1 refuses or surprises with, looked for in every Workflow that we build.

Names and lengths (``workflow/validate/validate.go``), tags that nothing fills, what is lost when a Workflow is stopped,
accounts, sizes. Hera checks none of it.
"""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from hera.workflows import models as m

from controller.compiling import GENERATION_LABEL, compiled, compiled_cleanup
from controller.loading import load_one
from pipelines.expressions import tasks_in
from pipelines.names import INFRASTRUCTURE_ACCOUNT, STEP_ACCOUNT, release_name
from pipelines.plan import Images, Placement, plan
from pipelines.workflow import compile_cron, compile_workflow
from presets.errors import KaiflowError
from presets.node_request import AksCluster, NodePlacement
from presets.yaml_text import load_yaml

ROOT = Path(__file__).parents[2]
EXAMPLES = [path for path in sorted((ROOT / "examples").glob("*.yaml")) if path.stem != "quickstart"]
PLACEMENTS = {
    "as it comes": Placement(),
    "agent pools, a cache": Placement("r.example.com/cache", nodes=NodePlacement("aks", aks=AksCluster("s", "g", "c"))),
    "given nodes, image volumes": Placement(image_volumes=True, nodes=NodePlacement("byo")),
    "own images, variables": Placement(images=Images(pull_secrets=("p",)), environment={"HF_ENDPOINT": "https://h"}),
}
KARPENTER = Placement(nodes=NodePlacement("karpenter"))
TAG = re.compile(r"\{\{(.*?)\}\}")
GLOBAL = {"workflow.name", "workflow.creationTimestamp"}
LABEL = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")


@pytest.fixture(params=EXAMPLES, ids=lambda path: path.stem)
def example(request):
    return request.param


@pytest.fixture(params=PLACEMENTS)
def bodies(request, example):
    """The Workflow, the CronWorkflow's Workflow, and the cleanup, each as (name, metadata, spec)."""
    made = plan(load_one(example, None).recipe, PLACEMENTS[request.param])
    workflow, cron = compile_workflow(made), compile_cron(made)
    found = [(workflow["metadata"], workflow["spec"])]
    return [*found, *([(cron["metadata"], cron["spec"]["workflowSpec"])] if cron else [])]


def dag(spec):
    return next(t for t in spec["templates"] if "dag" in t)["dag"]["tasks"]


def test_names_are_those_that_argo_takes_and_no_template_is_there_twice(bodies):
    for metadata, spec in bodies:
        assert len(metadata["name"]) <= 63
        names = [t["name"] for t in spec["templates"]]
        assert len(names) == len(set(names))
        assert all(re.fullmatch(r"[a-zA-Z0-9][-a-zA-Z0-9]*", name) for name in names)
        assert {task["template"] for task in dag(spec)} | {spec["entrypoint"], spec["onExit"]} == set(names)
        assert all(LABEL.fullmatch(value) for value in metadata["labels"].values())


def test_templates_are_containers_that_run_anywhere(bodies):
    """Argo's resource templates cannot wait on conditions; a DAG takes no deadline."""
    for _, spec in bodies:
        for template in spec["templates"]:
            assert ("container" in template) != ("dag" in template)
            assert ("activeDeadlineSeconds" in template) == ("container" in template)
            assert "memoize" not in template


def test_every_tag_is_filled(bodies):
    for _, spec in bodies:
        arguments = {f"workflow.parameters.{p['name']}" for p in spec["arguments"]["parameters"]} | GLOBAL
        for template in spec["templates"]:
            if "container" in template:
                own = {f"inputs.parameters.{p['name']}" for p in template["inputs"].get("parameters", ())}
                assert set(TAG.findall(json.dumps(template))) <= arguments | own


def declared(spec, side):
    """Return the names of each template's parameters."""
    return {t["name"]: {p["name"] for p in t.get(side, {}).get("parameters", ())} for t in spec["templates"]}


def test_every_value_of_a_task_comes_from_one_that_has_succeeded_before(bodies):
    for _, spec in bodies:
        outputs = {
            t["name"]: {p["name"] for p in t.get("outputs", {}).get("parameters", ())} for t in spec["templates"]
        }
        inputs = {t["name"]: {p["name"] for p in t.get("inputs", {}).get("parameters", ())} for t in spec["templates"]}
        tasks = {task["name"]: task for task in dag(spec)}

        def before(name, tasks=tasks):
            direct = tasks_in(tasks[name].get("depends", ""))
            return direct.union(*(before(other) for other in direct))

        for name, task in tasks.items():
            passed = {p["name"] for p in task.get("arguments", {}).get("parameters", ())}
            assert passed == inputs[task["template"]]
            for tag in TAG.findall(json.dumps(task)):
                _, source, _, _, output = tag.split(".", 4)
                assert source in before(name)
                assert output in outputs[tasks[source]["template"]]


def test_only_what_passes_is_tried_again(bodies):
    """With an expression and no policy the policy is Always since 3.5; the limit is a string to Argo's schema."""
    for _, spec in bodies:
        for template in spec["templates"]:
            if "container" in template:
                retry = template["retryStrategy"]
                assert (retry["limit"], retry["retryPolicy"]) == ("3", "Always")
                assert "lastRetry.exitCode" in retry["expression"]
                assert "75" in retry["expression"]


def test_accounts_have_no_more_than_their_step_needs(bodies):
    for _, spec in bodies:
        assert spec["serviceAccountName"] == spec["executor"]["serviceAccountName"] == STEP_ACCOUNT
        assert spec["automountServiceAccountToken"] is False
        for template in spec["templates"]:
            if "container" in template:
                infrastructure = template["name"] in ("provision", "deploy", "release")
                assert template.get("serviceAccountName") == (INFRASTRUCTURE_ACCOUNT if infrastructure else None)
                assert template["automountServiceAccountToken"] is infrastructure


def test_pods_are_restricted_and_runs_of_a_workspace_keep_apart(bodies):
    for metadata, spec in bodies:
        assert spec["securityContext"]["runAsNonRoot"]
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        mutexes = [mutex["name"] for mutex in spec["synchronization"]["mutexes"]]
        assert mutexes == [f"kaiflow-{metadata['labels']['kaito.sh/workspace']}"]
        assert spec["podGC"] == {"strategy": "OnPodSuccess"}
        assert set(spec["ttlStrategy"]) == {"secondsAfterSuccess", "secondsAfterFailure"}


def test_it_is_far_from_the_size_that_argo_takes(bodies):
    assert all(len(json.dumps(spec)) < 100_000 for _, spec in bodies)


def stored(example):
    """The example as the API server would give it back."""
    documents = load_yaml(example.read_text(), "x")
    body = next(d for d in documents if d["kind"] == "Workspace")
    config = next((d for d in documents if d["kind"] == "ConfigMap"), None)
    namespace = body["metadata"].get("namespace", "default")
    body["metadata"] |= {"uid": "u-1", "generation": 7, "resourceVersion": "12", "namespace": namespace}
    if config:
        config["metadata"]["resourceVersion"] = "34"
    return body, config


def test_what_the_controller_posts_belongs_to_the_workspace_and_says_what_it_was_asked_for(example):
    body, config = stored(example)
    workflow, cron = compiled(body, config, Placement())
    for made in filter(None, (workflow, cron)):
        assert made["metadata"]["ownerReferences"][0]["uid"] == "u-1"
        assert made["metadata"]["labels"][GENERATION_LABEL] == ("7.34" if config else "7.0")
        assert made["metadata"]["namespace"] == body["metadata"]["namespace"]
        kind = m.Workflow if made["kind"] == "Workflow" else m.CronWorkflow
        assert kind.model_validate(made).model_dump(mode="json", by_alias=True, exclude_none=True) == made
    if cron:
        labels = cron["spec"]["workflowMetadata"]["labels"]
        assert labels["kaito.sh/workspace"] == body["metadata"]["name"]  # Argo passes its own labels on to nobody


def test_the_cleanup_gives_back_the_nodes_of_every_run_and_outlives_the_workspace(example):
    body, config = stored(example)
    cleanup = compiled_cleanup(body, config, Placement())
    assert "ownerReferences" not in cleanup["metadata"]
    (template,) = cleanup["spec"]["templates"]
    assert cleanup["spec"]["entrypoint"] == template["name"] == "release"
    assert '"inputs":{"run":""}' in template["inputs"]["artifacts"][0]["raw"]["data"]
    again = m.Workflow.model_validate(cleanup).model_dump(mode="json", by_alias=True, exclude_none=True)
    assert again == cleanup


def test_a_single_run_has_a_cleanup_of_its_own_which_stays_as_long_as_its_workflow_may(example):
    body, config = stored(example)
    run = "w" * 52 + "-1234567890"
    made = compiled_cleanup(body, config, KARPENTER, run)
    name = made["metadata"]["name"]
    assert name == release_name(run)
    assert name.endswith("-cleanup")
    assert len(name) <= 63
    assert name != release_name("w" * 52 + "-1234567891")
    assert made["metadata"]["ownerReferences"][0]["uid"] == body["metadata"]["uid"]
    assert f'"inputs":{{"run":"{run}"}}' in made["spec"]["templates"][0]["inputs"]["artifacts"][0]["raw"]["data"]
    kept = compiled(body, config, KARPENTER)[0]["spec"]["ttlStrategy"]["secondsAfterFailure"]
    assert made["spec"]["ttlStrategy"]["secondsAfterCompletion"] > kept
    assert m.Workflow.model_validate(made).model_dump(mode="json", by_alias=True, exclude_none=True) == made


BROKEN = {
    "an unknown model": ("preset", {"name": "no-such-model"}), "no input": ("input", {}), "a field": ("extra", 1),
    "a model that fits no machine of its name": ("preset", {"name": "llama-3.3-70b-instruct"}),
}  # fmt: skip


@pytest.mark.parametrize("what", BROKEN)
def test_the_cleanup_of_a_workspace_that_is_not_valid_any_more_gives_back_the_same_nodes(example, what):
    body, config = stored(example)
    valid = compiled_cleanup(body, config, KARPENTER)
    key, value = BROKEN[what]
    spoiled = {**body, "tuning": {**body["tuning"], key: value}, "resource": {"instanceType": "Standard_NC6s_v3"}}
    with pytest.raises(KaiflowError):
        compiled(spoiled, config, KARPENTER)
    cleanup = compiled_cleanup(spoiled, config, KARPENTER)
    assert cleanup["metadata"]["name"] == valid["metadata"]["name"]
    asked, before = (json.loads(made["spec"]["templates"][0]["inputs"]["artifacts"][0]["raw"]["data"])
                     for made in (cleanup, valid))  # fmt: skip
    assert asked["inputs"] == before["inputs"] == {"run": ""}
    assert {k: v for k, v in asked["workspace"].items() if k != "revision"} == {
        k: v for k, v in before["workspace"].items() if k != "revision"
    }
    assert asked["recipe"]["node"]["placement"] == before["recipe"]["node"]["placement"]


def test_nodes_are_given_back_though_there_is_too_much_to_try_for_new_ones(example):
    body, config = stored(example)
    aks, others = AksCluster("s", "g", "c"), tuple("abcdefghij")
    much = Placement(nodes=NodePlacement("aks", aks=aks, fallback_instance_types=others, zones=("1", "2", "3", "4")))
    more = Placement(nodes=replace(much.nodes, spot="first"))
    body["metadata"].setdefault("annotations", {}).pop("kaiflow.dev/fallback-instance-types", None)
    with pytest.raises(KaiflowError, match="88 ways"):
        compiled(body, config, more)
    assert compiled_cleanup(body, config, more)["spec"]["entrypoint"] == "release"
    zones = {"kaiflow.dev/zones": ",".join(map(str, range(17)))}
    listed = {**body, "metadata": {**body["metadata"], "annotations": zones}}
    assert compiled_cleanup(listed, config, KARPENTER)["spec"]["entrypoint"] == "release"


def test_kueues_queue_passes_through_to_the_pod_that_trains(example):
    body, config = stored(example)
    body["metadata"]["labels"] = {"kueue.x-k8s.io/queue-name": "gpus"}
    workflow, _ = compiled(body, config, Placement())
    queued = [t["name"] for t in workflow["spec"]["templates"]
              if "kueue.x-k8s.io/queue-name" in t.get("metadata", {}).get("labels", {})]  # fmt: skip
    assert queued == ["tune"]
