"""Every preset on every machine: it fits, and how, or is refused with the term that is too large."""

import pytest

from presets.catalogue import catalogue, find_model
from presets.errors import ConfigError
from presets.fit import fit, fitting
from presets.gpus import Sku, find_sku, skus, unknown_sku
from presets.levers import FILLED
from presets.memory import GIB

TABLE = skus()


@pytest.fixture
def recipe_for(workspace, put, recipe_of):
    def make(preset, **sections):
        sections = {"QuantizationConfig": {"load_in_4bit": True}, **sections}
        return recipe_of(put(workspace, "tuning.preset.name", preset), **sections)

    return make


def sku_of(name) -> Sku:
    sku = find_sku(name, TABLE)
    assert sku is not None
    return sku


def test_names_are_found_in_any_case_and_a_near_one_is_suggested():
    assert sku_of("STANDARD_nc6S_V3").gpu.name == "NVIDIA V100"
    assert find_sku("Standard_NC7s_v3", TABLE) is None
    assert "Standard_NC6s_v3" in unknown_sku("Standard_NC7s_v3", TABLE)


def test_the_table_says_what_the_clouds_say():
    assert sku_of("Standard_ND96isr_H200_v5").count == 8
    assert not sku_of("Standard_NC6s_v3").gpu.has_bf16
    assert sku_of("g5.xlarge").gpu.has_bf16
    assert not sku_of("Standard_NV6").gpu.usable
    assert sku_of("a2-ultragpu-1g").gpu.memory_bytes > 79 * GIB
    assert {sku.provider for sku in TABLE.values()} == {"azure", "aws", "gcp"}


def test_a_price_says_where_it_is_from_and_a_missing_one_is_missing():
    price = sku_of("Standard_NC24ads_A100_v4").price
    assert price is not None
    assert price.usd_per_hour == 3.673
    assert price.source
    assert price.date
    assert sku_of("p5e.48xlarge").price is None


def test_a_file_of_ones_own_adds_machines_and_prices(tmp_path):
    path = tmp_path / "gpus.yaml"
    path.write_text(
        "gpus: {b200: {name: NVIDIA B200, capability: '10.0', memory_mib: 183359, tflops: 2250,"
        " bandwidth_gb_per_second: 8000}}\n"
        "sources: {mine: {text: our contract, date: '2026-11'}}\n"
        "skus:\n"
        "  ours: {rack-1: {gpu: b200, count: 8, usd_per_hour: 20, region: prague, source: mine}}\n"
        "  azure: {Standard_NC6s_v3: {gpu: v100-16, count: 1, usd_per_hour: 1, region: prague, source: mine}}\n"
    )
    table = skus(path)
    assert table["rack-1"].gpu.level == (10, 0)
    assert table["standard_nc6s_v3"].price is not None
    assert table["standard_nc6s_v3"].price.source == "our contract"
    assert len(table) == len(TABLE) + 1


@pytest.mark.parametrize(
    "text", ["gpus: 3", "skus: {azure: {x: {gpu: none, count: 1}}}", "[]", "skus: {a: {b: {}}}", ":"]
)
def test_a_file_that_is_no_such_table_is_refused(tmp_path, text):
    path = tmp_path / "gpus.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match="not a table"):
        skus(path)


PRESETS = [name for name, model in catalogue().items() if model.shape is not None]


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_on_every_machine_fits_its_memory_or_is_refused_with_reason_and_remedy(recipe_for, preset):
    recipe, model = recipe_for(preset), catalogue()[preset]
    verdicts = set()
    for sku in TABLE.values():
        try:
            found = fit(recipe, model, sku)
        except ConfigError as refusal:
            assert refusal.reason in ("GpuTooOld", "InsufficientMemory")
            assert refusal.fix
            verdicts.add(refusal.reason)
            continue
        assert found is not None
        assert found.need.total <= FILLED * sku.gpu.memory_bytes
        verdicts.add("fits")
    assert "fits" in verdicts
    assert "GpuTooOld" in verdicts


# GiB of the smallest card that QLoRA of the preset at 1,024 tokens fits, by the estimate.
LEAST = {
    "smollm2-135m-instruct": 15,
    "phi-3-mini-4k-instruct": 15,
    "llama-3.1-8b-instruct": 15,
    "phi-4": 15,
    "falcon-40b": 32,
}


@pytest.mark.parametrize(("preset", "gib"), LEAST.items())
def test_the_smallest_card_that_a_preset_fits(recipe_for, preset, gib):
    cards = [sku.gpu.memory_bytes for sku in fitting(recipe_for(preset), catalogue()[preset], TABLE.values())]
    assert min(cards) / GIB == pytest.approx(gib, abs=1)


def test_what_is_too_large_is_named_with_its_largest_term(recipe_for):
    model = find_model("llama-3.1-8b-instruct")
    assert model is not None
    with pytest.raises(ConfigError, match=r"activations \d+\.\d") as refused:
        fit(recipe_for("llama-3.1-8b-instruct", TrainingArguments={"max_length": 131072}), model, sku_of("g5.xlarge"))
    assert "max_length" in refused.value.fix
    with pytest.raises(ConfigError, match=r"adapter \d+\.\d") as refused:
        fit(recipe_for("llama-3.1-8b-instruct", LoraConfig={"r": 1024}), model, sku_of("g5.xlarge"))
    assert "LoraConfig.r" in refused.value.fix


def test_the_cheapest_that_fits_comes_first_and_those_without_price_last(recipe_for):
    found = fitting(recipe_for("llama-3.1-8b-instruct"), catalogue()["llama-3.1-8b-instruct"], TABLE.values())
    prices = [sku.price.usd_per_hour if sku.price else float("inf") for sku in found]
    assert prices == sorted(prices)
