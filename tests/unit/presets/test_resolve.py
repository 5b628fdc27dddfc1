"""Resolved values and where each came from."""

import pytest

from presets.catalogue import catalogue, find_model, served_only
from presets.errors import ConfigError, InvalidInput
from presets.manifest import parse_workspace
from presets.recipe import Origin
from presets.resolve import resolve
from presets.training_config import TrainingConfig


@pytest.fixture
def resolved(recipe_of):
    return recipe_of


def test_defaults_learn(workspace, resolved):
    recipe = resolved(workspace)
    assert recipe.training.learning_rate == 2e-4
    assert recipe.lora.alpha == 2 * recipe.lora.r
    assert recipe.training.packing
    assert recipe.data.held_out_fraction == 0.05
    assert recipe.origins["training.learning_rate"] is Origin.DEFAULT


def test_the_training_config_wins_over_preset_and_default(workspace, resolved):
    recipe = resolved(
        workspace, LoraConfig={"r": 4, "target_modules": ["o_proj"]}, TrainingArguments={"max_length": 128}
    )
    assert (recipe.lora.r, recipe.lora.alpha, recipe.lora.target_modules) == (4, 8, ("o_proj",))
    assert recipe.training.max_length_tokens == 128
    assert recipe.origins["lora.r"] is Origin.TRAINING_CONFIG


def test_the_preset_brings_its_own_targets(workspace, resolved):
    recipe = resolved(workspace)
    assert recipe.lora.target_modules == ("qkv_proj", "o_proj", "gate_up_proj", "down_proj")
    assert recipe.origins["lora.target_modules"] is Origin.PRESET


def test_the_workspace_wins_over_the_training_config(workspace, put, resolved):
    put(workspace, "tuning.evaluation", {"split": 0.2})
    recipe = resolved(workspace, DatasetConfig={"train_test_split": 0.9})
    assert recipe.data.held_out_fraction == 0.2
    assert recipe.origins["data.held_out_fraction"] is Origin.WORKSPACE


def test_train_test_split_keeps_the_rest_for_evaluation(workspace, resolved):
    assert resolved(workspace, DatasetConfig={"train_test_split": 0.9}).data.held_out_fraction == pytest.approx(0.1)
    assert resolved(workspace, DatasetConfig={"train_test_split": 1}).data.held_out_fraction == 0


@pytest.mark.parametrize(
    ("method", "config", "bits"), [("qlora", {}, 4), ("lora", {}, 16), ("QLoRA", {"load_in_8bit": True}, 8)]
)
def test_method_and_config_give_the_bits(workspace, put, resolved, method, config, bits):
    put(workspace, "tuning.method", method)
    assert resolved(workspace, QuantizationConfig=config).quantization.bits == bits


def test_keys_without_a_field_of_their_own_pass_through(workspace, resolved):
    recipe = resolved(
        workspace, LoraConfig={"use_rslora": True}, TrainingArguments={"weight_decay": 0.1, "output_dir": "/mnt/x"}
    )
    assert dict(recipe.lora.extra) == {"use_rslora": True}
    assert dict(recipe.training.extra) == {"weight_decay": 0.1}


def test_every_value_has_an_origin(workspace, resolved):
    recipe = resolved(workspace)
    paths = [path for path, _, _ in recipe.values()]
    assert len(paths) == len(set(paths)) > 40


def test_the_same_request_has_the_same_revision_and_another_has_another(workspace, put, resolved):
    first = resolved(workspace).revision
    assert resolved(workspace).revision == first
    assert resolved(workspace, LoraConfig={"r": 4}).revision != first
    assert resolved(put(workspace, "metadata.labels", {"a": "b"})).revision == first
    assert resolved(put(workspace, "tuning.schedule", {"cron": "0 3 * * 0"})).revision == first  # when is not what
    assert resolved(put(workspace, "tuning.schedule", {"cron": "0 3 * * 0", "suspend": True})).revision == first
    assert resolved(put(workspace, "tuning.input.urls", ["https://x.example.com/b"])).revision != first


def test_more_tokens_than_the_context_are_refused(workspace, resolved):
    with pytest.raises(InvalidInput, match="more than the context"):
        resolved(workspace, TrainingArguments={"max_length": 10**6})


def test_a_gate_that_enforces_needs_held_out_rows(workspace, put, resolved):
    put(workspace, "tuning.evaluation", {"gate": "enforce"})
    with pytest.raises(InvalidInput, match="held-out"):
        resolved(workspace, DatasetConfig={"train_test_split": 1})


def test_scheduled_runs_are_gated(workspace, put, resolved):
    put(workspace, "tuning.schedule", {"cron": "@weekly"})
    assert resolved(workspace).evaluation.gate == "enforce"


def test_an_inference_workspace_has_no_recipe(workspace, put):
    put(put(workspace, "tuning", ...), "inference", {"preset": {"name": "phi-4"}})
    parsed = parse_workspace(workspace, "f").workspace
    model = find_model("phi-4")
    assert parsed is not None
    assert model is not None
    with pytest.raises(ConfigError):
        resolve(parsed, model, TrainingConfig())


def test_v1alpha1_has_kaitos_default_machine(workspace, put, resolved):
    put(put(workspace, "apiVersion", "kaito.sh/v1alpha1"), "resource.instanceType", ...)
    assert resolved(workspace).node.instance_type == "Standard_NC24ads_A100_v4"


# Sizes of the published bfloat16 weights, in GiB (KAITO v0.12's catalogue; the falcon and phi-2 repositories).
PUBLISHED_GIB = {
    "phi-4": 27.31, "phi-4-mini-instruct": 7.15, "phi-3-mini-4k-instruct": 7.12, "phi-3-mini-128k-instruct": 7.12,
    "phi-3-medium-4k-instruct": 26.00, "phi-3-medium-128k-instruct": 26.00, "phi-3.5-mini-instruct": 7.12,
    "qwen2.5-coder-7b-instruct": 14.19, "qwen2.5-coder-32b-instruct": 61.03, "llama-3.1-8b-instruct": 14.96,
    "mistral-7b": 13.50, "mistral-7b-instruct": 13.50, "deepseek-r1-distill-llama-8b": 14.96,
    "deepseek-r1-distill-qwen-14b": 27.51, "falcon-7b": 13.44, "falcon-40b": 77.93, "phi-2": 5.18,
    "smollm2-135m-instruct": 0.2506,
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(catalogue()))
def test_the_shape_of_every_model_gives_its_published_size(name):
    shape = catalogue()[name].shape
    assert shape is not None
    assert shape.parameters * 2 / 2**30 == pytest.approx(PUBLISHED_GIB[name], rel=0.005)


def test_every_model_is_pinned_and_licensed():
    for name, model in catalogue().items():
        assert model.name == name
        assert model.license
        assert len(model.revision) == 40 or model.weights.package


def test_models_are_found_by_hub_id_too():
    assert find_model("microsoft/Phi-4") is catalogue()["phi-4"]
    assert find_model("no-such-model") is None
    unknown = find_model("someone/model")
    assert unknown is not None
    assert unknown.shape is None


def test_no_preset_is_both_tunable_and_not():
    assert not set(served_only()) & set(catalogue())


SEVEN = ["k_proj", "q_proj", "v_proj", "o_proj", "gate_proj", "down_proj", "up_proj"]  # KAITO's DEFAULT_TARGET_MODULES


@pytest.mark.parametrize(
    ("preset", "asked", "expected"),
    [
        ("phi-3-mini-4k-instruct", None, ("qkv_proj", "o_proj", "gate_up_proj", "down_proj")),
        ("phi-4-mini-instruct", None, ("qkv_proj", "o_proj", "gate_up_proj", "down_proj")),  # peft knows no default
        ("llama-3.1-8b-instruct", SEVEN, tuple(SEVEN)),
        ("llama-3.1-8b-instruct", ["q_proj", "v_proj"], ("q_proj", "v_proj")),
        ("llama-3.1-8b-instruct", "all-linear", "all-linear"),
        ("llama-3.1-8b-instruct", ["self_attn.q_proj", "lm_head"], ("self_attn.q_proj", "lm_head")),
        ("org/of-the-hub", ["anything"], ("anything",)),
    ],
)
def test_target_modules_are_those_asked_for_or_all_that_the_model_has(
    workspace, put, recipe_of, preset, asked, expected
):
    lora = {"r": 4} if asked is None else {"target_modules": asked}
    body = put(workspace, "tuning.preset.name", preset)
    recipe = recipe_of(body, QuantizationConfig={"load_in_4bit": True}, LoraConfig=lora)
    assert recipe.lora.target_modules == expected


def test_modules_that_a_model_has_fused_are_refused_each_at_its_place(workspace, put, recipe_of):
    body = put(workspace, "tuning.preset.name", "phi-3-mini-4k-instruct")
    with pytest.raises(InvalidInput) as refused:
        recipe_of(body, QuantizationConfig={"load_in_4bit": True}, LoraConfig={"target_modules": SEVEN})
    fields = {error.field.rpartition("modules")[2]: error.fix for error in refused.value.errors}
    assert fields == {
        "[0]": "Write qkv_proj.", "[1]": "Write qkv_proj.", "[2]": "Write qkv_proj.",
        "[4]": "Write gate_up_proj.", "[6]": "Write gate_up_proj.",
    }  # fmt: skip


def budget_of(recipe_of, put, workspace, sku="Standard_NC24ads_A100_v4", **said):
    body = put(workspace, "resource.instanceType", sku) if sku else workspace
    annotations = {f"kaiflow.dev/{key.replace('_', '-')}": value for key, value in said.items()}
    return recipe_of(put(body, "metadata.annotations", annotations)).budget


def test_a_budget_in_hours_or_dollars_becomes_seconds_and_a_deadline_behind_them(recipe_of, put, workspace):
    hours = budget_of(recipe_of, put, workspace, max_hours="1.5")
    assert hours.max_seconds == 5400
    assert hours.deadline_seconds == 6540
    paid = budget_of(recipe_of, put, workspace, max_cost="3.673")
    assert paid.max_seconds == 3600
    assert budget_of(recipe_of, put, workspace, max_hours="0.5", max_cost="3.673").max_seconds == 1800
    assert budget_of(recipe_of, put, workspace, max_hours="1000").deadline_seconds == 172800
    assert budget_of(recipe_of, put, workspace).max_seconds is None


def test_a_budget_in_dollars_needs_a_price(recipe_of, put, workspace):
    with pytest.raises(InvalidInput, match=r"What p5e\.48xlarge costs is not known"):
        budget_of(recipe_of, put, workspace, sku="p5e.48xlarge", max_cost="10")
