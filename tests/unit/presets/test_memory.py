"""The memory estimate: exact where arithmetic is, and each term moves with its cause."""

import pytest

from presets.catalogue import catalogue, find_model
from presets.fit import need_of
from presets.levers import Levers
from presets.memory import GIB, adapter_parameters


@pytest.mark.parametrize(
    ("name", "rank", "parameters"),
    [("llama-3.1-8b-instruct", 16, 41_943_040), ("smollm2-135m-instruct", 8, 2_442_240)],
)  # as peft counts them
def test_the_adapters_size_is_pefts(name, rank, parameters):
    model = catalogue()[name]
    assert model.shape is not None
    assert adapter_parameters(model.shape, model.lora_targets, rank) == parameters


def test_fused_projections_count_as_their_parts():
    shape = catalogue()["phi-4"].shape
    assert shape is not None
    whole = adapter_parameters(shape, ["qkv_proj"], 4)
    parts = adapter_parameters(shape, ["q_proj", "k_proj", "v_proj"], 4)
    assert parts - whole == 4 * shape.layers * 2 * shape.hidden  # three inputs for one


@pytest.fixture
def need(workspace, put, recipe_of):
    def ask(preset="llama-3.1-8b-instruct", every=0, dequantised=False, **sections):
        sections = {"QuantizationConfig": {"load_in_4bit": True}, **sections}
        model = find_model(preset)
        assert model is not None
        assert model.shape is not None
        recipe = recipe_of(put(workspace, "tuning.preset.name", preset), **sections)
        return need_of(recipe, model, model.shape)(Levers(recipe.training.batch_size, 1, every, dequantised))

    return ask


def test_four_bit_weights_of_eight_billion_parameters_take_three_and_a_half_gib(need):
    assert need().weights / GIB == pytest.approx(6.98e9 * 0.5159 / GIB, rel=0.01)
    assert need(QuantizationConfig={"load_in_4bit": True, "bnb_4bit_use_double_quant": False}).weights > need().weights


def test_each_term_moves_with_its_cause(need):
    plain, long = need(), need(TrainingArguments={"max_length": 2048})
    assert long.activations == 2 * plain.activations
    assert long.weights == plain.weights
    assert need(every=1).activations < plain.activations / 8
    assert need(LoraConfig={"r": 16}).adapter == 2 * plain.adapter
    assert need(TrainingArguments={"per_device_train_batch_size": 2}).activations == 2 * plain.activations
    assert plain.total == sum(getattr(plain, name) for name in plain.__dataclass_fields__)


def test_recomputing_eight_billion_parameters_at_four_thousand_tokens_comes_near_what_torchtune_publishes(need):
    """Torchtune's README: Llama-3.1-8B, QLoRA, 2 x 2048 packed tokens, activations offloaded: 7.4 GiB."""
    found = need(every=1, TrainingArguments={"max_length": 4096})
    offloaded = 2 * 4096 * 32 * 4096  # what torchtune moved to the CPU and we keep: 2 bytes, width, layers, tokens
    assert 7.4 * 0.95 < (found.total - offloaded) / GIB < 7.4 * 1.25


def test_recomputing_every_other_layer_lies_between_none_and_all(need):
    none, half, every = need().activations, need(every=2).activations, need(every=1).activations
    assert every < half < none
    assert half == pytest.approx((none + every) / 2, rel=0.1)


def test_weights_dequantised_once_take_two_bytes_each_and_no_buffer(need):
    once = need(dequantised=True)
    assert once.weights / GIB == pytest.approx(2 * 6.98e9 / GIB, rel=0.01)
    assert once.dequantised == 0
    assert need().dequantised > 0
