"""What a cluster offers changes where artifacts lie and how weights travel, and nothing else."""

import pytest

from pipelines.plan import Placement, plan
from pipelines.workflow import compile_workflow
from presets.errors import InvalidInput

IMAGE = f"registry.example.com/models/phi-3@sha256:{'a' * 64}"


@pytest.fixture
def compiled(workspace, put, recipe_of):
    def of(placement, **edits):
        document = workspace
        for path, value in edits.items():
            document = put(document, path.replace("__", "."), value)
        body = compile_workflow(plan(recipe_of(document), placement))
        parameters = {p["name"]: p["value"] for p in body["spec"]["arguments"]["parameters"]}
        return body, parameters, {t["name"]: t for t in body["spec"]["templates"]}

    return of


def mounts(template):
    return {m["name"]: m for m in template["container"].get("volumeMounts", ())}


def test_without_a_cache_artifacts_lie_beside_the_image_and_weights_stay_where_they_are(compiled):
    _, parameters, _ = compiled(Placement())
    assert (parameters["store"], parameters["stage"]) == ("registry:registry.example.com/team/adapter", "false")


def test_with_a_cache_all_but_the_users_image_lies_there_weights_too(compiled):
    _, parameters, _ = compiled(Placement(cache="cache.example.com/kaiflow"))
    assert (parameters["store"], parameters["stage"]) == ("registry:cache.example.com/kaiflow", "true")


def test_weights_of_an_image_named_by_digest_are_mounted_where_the_cluster_can(compiled):
    placement = Placement(cache="cache.example.com/kaiflow", image_volumes=True)
    body, parameters, templates = compiled(placement, tuning__preset__presetOptions={"image": IMAGE})
    (volume,) = [v for v in body["spec"]["volumes"] if v["name"] == "weights"]
    assert volume["image"] == {"reference": IMAGE, "pullPolicy": "IfNotPresent"}
    assert parameters["stage"] == "false"
    mounted = {
        name for name, template in templates.items() if "container" in template and "weights" in mounts(template)
    }
    assert mounted == {"tune", "deploy"}
    assert mounts(templates["tune"])["weights"] == {"name": "weights", "mountPath": "/mnt/weights", "readOnly": True}


@pytest.mark.parametrize(("image", "can"), [(IMAGE, False), (IMAGE.replace("@sha256:", ":"), True), (None, True)])
def test_an_image_that_may_move_or_a_cluster_that_cannot_mount_it_mounts_none(compiled, image, can):
    edits = {"tuning__preset__presetOptions": {"image": image}} if image else {}
    body, _, _ = compiled(Placement(image_volumes=can), **edits)
    assert "weights" not in {v["name"] for v in body["spec"].get("volumes", ())}


def test_kaitos_weight_images_are_taken_from_the_registry_that_is_named(workspace, put, recipe_of):
    annotations = {"kaiflow.dev/weights-registry": "mirror.example.com:5000/aks/kaito"}
    document = put(workspace, "metadata.annotations", annotations)
    assert (
        recipe_of(document).model.weights_image
        == "mirror.example.com:5000/aks/kaito/kaito-phi-3-mini-128k-instruct:0.2.0"
    )
    put(document, "tuning.preset.presetOptions", {"image": IMAGE})
    assert recipe_of(document).model.weights_image == IMAGE


def test_a_model_that_kaito_publishes_no_image_of_is_refused_with_a_weights_registry(workspace, put, recipe_of):
    put(workspace, "metadata.annotations", {"kaiflow.dev/weights-registry": "mcr.microsoft.com/aks/kaito"})
    put(workspace, "tuning.preset.name", "HuggingFaceTB/SmolLM2-360M-Instruct")
    with pytest.raises(InvalidInput, match="no image"):
        recipe_of(workspace)
