"""KAITO's training_config.yaml: every key is known, wrong ones cost nothing."""

import pytest
import yaml

from presets.errors import InvalidInput
from presets.training_config import SECTIONS, known_keys, parse_training_config


def parse(body, method="qlora"):
    return parse_training_config(yaml.safe_dump({"training_config": body}), method, "test")


def refused(body, method="qlora"):
    with pytest.raises(InvalidInput) as caught:
        parse(body, method)
    assert all(error.fix for error in caught.value.errors)
    return [(error.field.removeprefix("training_config."), error.reason) for error in caught.value.errors]


FOUR_BIT = {"QuantizationConfig": {"load_in_4bit": True}}
KAITO_TEMPLATE = {
    "ModelConfig": {"torch_dtype": "bfloat16", "local_files_only": True, "device_map": "auto"},
    "QuantizationConfig": {
        "load_in_4bit": True,
        "bnb_4bit_quant_type": "nf4",
        "bnb_4bit_compute_dtype": "bfloat16",
        "bnb_4bit_use_double_quant": True,
    },
    "LoraConfig": {"r": 8, "lora_alpha": 8, "lora_dropout": 0.0},
    "TrainingArguments": {
        "output_dir": "/mnt/results",
        "ddp_find_unused_parameters": False,
        "save_strategy": "no",
        "per_device_train_batch_size": 1,
    },
    "DataCollator": {"mlm": True},
    "DatasetConfig": {"shuffle_dataset": True, "train_test_split": 1},
}


def test_kaitos_own_template_is_taken():
    assert parse(KAITO_TEMPLATE).get("LoraConfig", "r") == 8


def test_the_lora_template_is_taken():
    assert (
        parse({"QuantizationConfig": {"load_in_4bit": False}}, "lora").get("QuantizationConfig", "load_in_4bit")
        is False
    )


@pytest.mark.parametrize(
    ("section", "key", "value", "reason"),
    [
        ("LoraConfig", "lora_alhpa", 16, "UnknownKey"),
        ("LoraConfig", "r", "eight", "InvalidValue"),
        ("LoraConfig", "r", 0, "InvalidValue"),
        ("LoraConfig", "lora_dropout", 1.0, "InvalidValue"),
        ("LoraConfig", "bias", "some", "InvalidValue"),
        ("TrainingArguments", "learning_rate", "fast", "InvalidValue"),
        ("TrainingArguments", "learning_rate", True, "InvalidValue"),
        ("TrainingArguments", "deepspeed", "zero3.json", "RefusedKey"),
        ("TrainingArguments", "push_to_hub", True, "RefusedKey"),
        ("TrainingArguments", "output_dir", "../etc", "InvalidValue"),
        ("TrainingArguments", "output_dir", 5, "InvalidValue"),
        ("ModelConfig", "trust_remote_code", True, "RefusedKey"),
        ("LoraConfig", "target_modules", 5, "InvalidValue"),
        ("LoraConfig", "target_modules", [], "InvalidValue"),
        ("TrainingArguments", "max_steps", 0, "InvalidValue"),
        ("TrainingArguments", "warmup_ratio", -4, "InvalidValue"),
        ("TrainingArguments", "adam_beta1", 7, "InvalidValue"),
        ("TrainingArguments", "save_steps", 0, "InvalidValue"),
        ("TrainingArguments", "lr_scheduler_type", "nonsense", "InvalidValue"),
        ("TrainingArguments", "optim", "nonsense", "InvalidValue"),
        ("DatasetConfig", "train_test_split", 0, "InvalidValue"),
        ("DatasetConfig", "train_test_split", 1.1, "InvalidValue"),
        ("DatasetConfig", "train_test_splt", 0.9, "UnknownKey"),
    ],
)
def test_a_key_that_cannot_be_honoured_is_refused_at_its_place(section, key, value, reason):
    assert refused({**FOUR_BIT, section: {key: value}}) == [(f"{section}.{key}", reason)]


def test_a_misspelt_key_names_the_nearest():
    with pytest.raises(InvalidInput, match="no key") as caught:
        parse({**FOUR_BIT, "LoraConfig": {"lora_alhpa": 16}})
    assert "lora_alpha" in caught.value.errors[0].fix


def test_a_key_of_another_section_says_where_it_belongs():
    with pytest.raises(InvalidInput) as caught:
        parse({**FOUR_BIT, "TrainingArguments": {"lora_alpha": 16}})
    assert "LoraConfig" in caught.value.errors[0].fix


def test_an_unknown_section_is_refused():
    assert refused({**FOUR_BIT, "LoRAConfig": {}}) == [("LoRAConfig", "UnknownSection")]


@pytest.mark.parametrize(
    ("method", "quantization"),
    [
        ("qlora", {}),
        ("qlora", {"load_in_4bit": False}),
        ("qlora", {"load_in_4bit": True, "load_in_8bit": True}),
        ("lora", {"load_in_4bit": True}),
        ("lora", {"load_in_8bit": True}),
    ],
)
def test_method_and_quantisation_must_agree(method, quantization):
    assert refused({"QuantizationConfig": quantization}, method)[0] == ("QuantizationConfig", "Conflict")


@pytest.mark.parametrize("text", ["", "training_config: [1]", "training_config:", "{", "x: 1"])
def test_a_config_without_its_map_is_refused(text):
    with pytest.raises(InvalidInput):
        parse_training_config(text, "qlora", "test")


def test_all_errors_come_at_once():
    body = {**FOUR_BIT, "LoraConfig": {"x": 1, "r": -1}, "Nope": {}}
    assert len(refused(body)) == 3


def test_no_key_stands_in_two_kinds():
    for section in SECTIONS:
        kinds = list(known_keys()[section].values())
        names = [key for kind in kinds for key in kind]
        assert len(names) == len(set(names)), section


def test_a_text_that_takes_long_to_read_is_refused_unread():
    assert refused({"ModelConfig": {"x": "y" * 65536}}) == [("training_config", "TrainingConfigTooLong")]
