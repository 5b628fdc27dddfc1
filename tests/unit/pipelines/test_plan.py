"""The plan, its names, and requests that Argo does not misread."""

import json

import pytest

from pipelines.nodes import node_id
from pipelines.plan import plan, request_json, run_name, told
from pipelines.substitution import UnresolvedError, fill, seconds
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


def test_a_request_is_what_the_step_reads(workspace, recipe_of):
    recipe = recipe_of(workspace)
    tune = next(s for s in plan(recipe).steps if s.verb == "tune")
    scope = {
        "workflow.parameters.store": "layout:/x", "workflow.parameters.target": "local",
        "inputs.parameters.dataset": "sha256:a", "inputs.parameters.weights": "sha256:b",
    }  # fmt: skip
    request = Request.model_validate_json(fill(request_json(recipe, tune), scope))
    assert request.inputs == {"dataset": "sha256:a", "weights": "sha256:b"}
    assert (request.store, request.target) == ("layout:/x", "local")


def test_braces_of_the_users_own_are_not_tags(workspace, recipe_of):
    template = "{% for m in messages %}{{ m['content'] }}{{eos_token}}{% endfor %}"
    recipe = recipe_of(workspace, ModelConfig={"chat_template": template})
    weights = next(s for s in plan(recipe).steps if s.verb == "weights")
    text = request_json(recipe, weights)
    tags = {"workflow.parameters.store": "s", "workflow.parameters.target": "local"}
    assert json.loads(fill(text, tags))["recipe"]["model"]["chat_template"] == template


def test_a_step_is_told_only_what_it_depends_on(workspace, recipe_of):
    recipe = recipe_of(workspace)
    assert set(told(recipe, "fetch")) == {"data", "audit", "model", "training"}  # rows are measured
    assert "evaluation" not in told(recipe, "weights")


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
