"""What an edit of a Workspace costs: the steps whose content keys change, and no others."""

import copy
import json

import pytest

from controller.reuse import KEEPING, finished
from pipelines.nodes import node_id
from pipelines.plan import plan, request_json, told
from pipelines.substitution import fill
from pipelines.workflow import compile_workflow
from steps.adapter_image import created_at, image_annotations
from steps.content_keys import ADAPTER_TYPE, assembled_tag, dataset_tag, run_key, run_tag, weights_tag
from steps.contract import Request
from steps.oci_layout import LayoutStore
from steps.store import Manifest, publish
from steps.weights_origin import pin

# An edit: (place in the Workspace or "config", value) -> the steps that do their work anew. provision, deploy and
# release keep nothing: they look at what is there.
TRAINING, DATASET = {"QuantizationConfig": {"load_in_4bit": True}}, {"name": "train.parquet", "sha256": "a" * 64}
EDITS = [
    ("nothing", {}, set()),
    ("the learning rate", {"config": {"TrainingArguments": {"learning_rate": 1e-3}}}, {"tune", "push"}),
    ("the rank of the adapter", {"config": {"LoraConfig": {"r": 32}}}, {"tune", "push"}),
    ("the seed of the training", {"config": {"TrainingArguments": {"seed": 7}}}, {"tune", "push"}),
    ("the gate", {"tuning.evaluation": {"gate": "off"}}, set()),
    ("the held-out share", {"tuning.evaluation": {"split": 0.2}}, {"fetch", "tune", "push"}),
    ("the length of a row", {"config": {"TrainingArguments": {"max_length": 256}}}, {"fetch", "tune", "push"}),
    ("the data", {"sha256": "b" * 64, "content": "other"}, {"fetch", "tune", "push"}),
    ("the name of the data's file", {"name": "again.parquet"}, {"fetch"}),  # the rows are the same: tune is reused
    ("a column", {"config": {"DatasetConfig": {"context_column": "q"}}}, {"fetch"}),  # likewise
    ("the model", {"tuning.preset": {"name": "llama-3.1-8b-instruct"}}, {"fetch", "weights", "tune", "push"}),
    ("the tag of the image", {"tuning.output.image": "registry.example.com/team/adapter:2"}, set()),
    ("the budget", {"metadata.annotations": {"kaiflow.dev/max-hours": "2"}}, set()),
    ("replicas", {"tuning.deploy": {"replicas": 3}}, set()),
    ("the machine", {"resource.instanceType": "Standard_NC40ads_H100_v5"}, set()),
    ("the Secret of the hub's token", {"tuning.preset.presetOptions": {"modelAccessSecret": "x"}}, set()),
    ("the name of the Workspace", {"metadata.name": "another"}, {"push"}),  # the image says whose it is
]  # fmt: skip


OF_THE_DATA = {"sha256", "name", "content"}  # what nobody knows before the run


@pytest.fixture
def edited(workspace, put, recipe_of):
    """Return the Recipe of the Workspace with an edit."""

    def of(edit):
        document, config = copy.deepcopy(workspace), dict(TRAINING)
        for place, value in edit.items():
            if place == "config":
                config |= value
            elif "." in place:
                document = put(document, place, value)
        return recipe_of(document, **config)

    return of


@pytest.fixture
def keys(edited, tmp_path):
    def of(edit):
        recipe = edited(edit)
        inputs = {
            "workflow.parameters.store": f"layout:{tmp_path}", "workflow.parameters.target": "local",
            "workflow.parameters.stage": "true", "workflow.parameters.publish": "false",
            "workflow.parameters.port": "0", "workflow.parameters.scheduled": "false",
            "workflow.creationTimestamp": "2026-11-25T00:00:00Z",
        }  # fmt: skip
        made = plan(recipe)
        steps = {step.verb: step for step in made.steps}

        def told(verb, **outputs):
            scope = {**inputs, **{f"inputs.parameters.{name}": value for name, value in outputs.items()}}
            return Request.model_validate_json(fill(request_json(made, steps[verb]), scope))

        file = edit.get("name", DATASET["name"]), edit.get("sha256", DATASET["sha256"])
        fetched = dataset_tag([file], told("fetch").recipe)
        content = f"{edit.get('content', 'rows')} {recipe.data.held_out_fraction}"
        base = weights_tag(pin(recipe.model).to_json(), staged=True)
        trained = run_key(told("tune", dataset=fetched, weights=base, published="").recipe, base, content, 1)
        run = Manifest(trained, "t", (), {}, 0)
        image = image_annotations(recipe.name, f"default/{recipe.name}", recipe.model, recipe.data, run)
        return {"fetch": fetched, "weights": base, "tune": trained, "push": assembled_tag(image, "")}

    return of


@pytest.mark.parametrize(("what", "edit", "again"), EDITS, ids=[what for what, _, _ in EDITS])
def test_an_edit_repeats_the_steps_that_depend_on_it_and_no_others(keys, what, edit, again):
    before, after = keys({}), keys(edit)
    assert {step for step in before if before[step] != after[step]} == again, what


@pytest.fixture
def ran(edited, tmp_path):
    """A run that has ended: its Workflow, and the store with all that it has made."""
    store, made = LayoutStore(tmp_path / "store"), plan(edited({}))
    (tmp_path / "file").write_text("x")
    files = {"file": tmp_path / "file"}
    content = {"kaiflow.dataset.content": "rows"}
    dataset = publish(store, "dataset", files, content, ["kaiflow-dataset-1"])
    weights = publish(store, "weights", files, {}, ["kaiflow-weights-1"])
    key = run_key(told(made, "tune"), weights.digest, "rows", 1)
    run = publish(store, ADAPTER_TYPE, files, {}, [run_tag(key)])
    recipe = made.recipe
    notes = image_annotations(recipe.name, f"default/{recipe.name}", recipe.model, recipe.data, run)
    publish(store, "image", files, {}, [assembled_tag(notes, created_at())])
    workflow = compile_workflow(made)
    outputs = {"fetch": ("dataset", dataset.digest), "weights": ("weights", weights.digest)}
    workflow["status"] = {"nodes": {
        node_id(made.name, f"{made.name}.{step}"): {
            "phase": "Succeeded", "outputs": {"parameters": [{"name": name, "value": value}]},
        }
        for step, (name, value) in outputs.items()
    }}  # fmt: skip
    return workflow, store


KNOWABLE = [(edit, again) for _, edit, again in EDITS if not OF_THE_DATA & edit.keys()]


@pytest.mark.parametrize(("edit", "again"), KNOWABLE, ids=[json.dumps(edit) for edit, _ in KNOWABLE])
def test_a_plan_names_the_steps_that_an_edit_leaves_finished(edited, ran, edit, again):
    workflow, store = ran
    # Who repeats fetch without other rows trains what is known; before the run nobody can tell.
    behind = {"tune", "push"} if "fetch" in again else set()
    assert finished(plan(edited(edit)), workflow, store) == set(KEEPING) - again - behind


def test_a_plan_takes_nothing_for_finished_that_is_not_there_any_more(edited, ran):
    workflow, store = ran
    digest = store.find("kaiflow-weights-1").digest
    (store.root / "blobs" / digest.replace(":", "/")).unlink()
    assert finished(plan(edited({})), workflow, store) == {"fetch"}


def test_a_plan_takes_another_source_for_other_data(edited, ran):
    other = edited({"tuning.input": {"urls": ["https://data.example.com/other.parquet"]}})
    assert finished(plan(other), *ran) == {"weights"}
