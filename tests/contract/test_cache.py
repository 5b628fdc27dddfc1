"""What an edit of a Workspace costs: the steps whose content keys change, and no others."""

import pytest

from pipelines.plan import plan, request_json
from pipelines.substitution import fill
from steps import fetch, tune, weights
from steps.contract import Request
from steps.push import _annotations, image_key
from steps.sources import Collected, Source
from steps.store import Manifest
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
    ("the name of the Workspace", {"metadata.name": "another"}, {"push"}),  # the image says whose it is
]  # fmt: skip


@pytest.fixture
def keys(workspace, put, recipe_of, tmp_path):
    def of(edit):
        document, config = workspace, dict(TRAINING)
        for place, value in edit.items():
            if place == "config":
                config |= value
            elif "." in place:
                document = put(document, place, value)
        recipe = recipe_of(document, **config)
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

        source = Source(tmp_path / "x", edit.get("name", DATASET["name"]), edit.get("sha256", DATASET["sha256"]))
        fetched = fetch._key(Collected([source]), told("fetch"))
        content = f"{edit.get('content', 'rows')} {recipe.data.held_out_fraction}"
        base = weights.weights_key(pin(recipe.model), staged=True)
        trained = tune.run_key(told("tune", dataset=fetched, weights=base, published=""), content, 1)
        run = Manifest(trained, "t", (), {}, 0)
        return {
            "fetch": fetched, "weights": base, "tune": trained,
            "push": image_key(_annotations(told("push", run=trained, against=""), run)),
        }  # fmt: skip

    return of


@pytest.mark.parametrize(("what", "edit", "again"), EDITS, ids=[what for what, _, _ in EDITS])
def test_an_edit_repeats_the_steps_that_depend_on_it_and_no_others(keys, what, edit, again):
    before, after = keys({}), keys(edit)
    assert {step for step in before if before[step] != after[step]} == again, what
