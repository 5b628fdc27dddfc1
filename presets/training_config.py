"""KAITO's ``training_config.yaml``: six sections of keys, checked before anything runs.

KAITO hands the sections to a command-line parser inside the GPU pod, so that a misspelt key costs a node.
Here every key is known by name (``training_keys.yaml``): it does what the library says, or is accepted
because it is so anyway, or is refused with the reason. Unknown keys name the nearest one.
"""

import math
import posixpath
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any

import yaml

from presets.errors import FieldError, InvalidInput, did_you_mean
from presets.yaml_text import load_yaml

CONFIG_MAP_KEY = "training_config.yaml"
LONGEST_CHARACTERS = 64 * 1024
SECTIONS = (
    "ModelConfig",
    "QuantizationConfig",
    "LoraConfig",
    "TrainingArguments",
    "DataCollator",
    "DatasetConfig",
)

_TYPES: Mapping[str, Callable[[Any], bool]] = {
    "bool": lambda v: isinstance(v, bool),
    "int": lambda v: isinstance(v, int) and not isinstance(v, bool),
    "number": lambda v: isinstance(v, int | float) and not isinstance(v, bool),
    "string": lambda v: isinstance(v, str),
    "strings": lambda v: isinstance(v, str) or (isinstance(v, list) and all(isinstance(i, str) for i in v)),
    "map": lambda v: isinstance(v, dict),
    "any": lambda _: True,
}
_CHOICES: Mapping[str, tuple[str, ...]] = {
    "QuantizationConfig.bnb_4bit_quant_type": ("nf4", "fp4"),
    "QuantizationConfig.bnb_4bit_compute_dtype": ("bfloat16", "float16", "float32"),
    "ModelConfig.torch_dtype": ("bfloat16", "float16", "float32", "auto"),
    "ModelConfig.dtype": ("bfloat16", "float16", "float32", "auto"),
    "LoraConfig.bias": ("none", "all", "lora_only"),
    "TrainingArguments.save_strategy": ("no", "epoch", "steps"),
    "TrainingArguments.lr_scheduler_type": (
        "linear",
        "cosine",
        "cosine_with_restarts",
        "polynomial",
        "constant",
        "constant_with_warmup",
        "inverse_sqrt",
        "cosine_with_min_lr",
        "warmup_stable_decay",
    ),
    "TrainingArguments.optim": (
        "adamw_torch",
        "adamw_torch_fused",
        "adamw_8bit",
        "adamw_bnb_8bit",
        "paged_adamw_8bit",
        "paged_adamw_32bit",
        "adafactor",
        "sgd",
        "rmsprop",
        "lion_8bit",
        "lion_32bit",
        "paged_lion_8bit",
    ),
}
_RANGES: Mapping[str, tuple[float, float]] = {
    "TrainingArguments.warmup_ratio": (0, 1),
    "TrainingArguments.warmup_steps": (0, math.inf),
    "TrainingArguments.weight_decay": (0, math.inf),
    "TrainingArguments.adam_beta1": (0, 1),
    "TrainingArguments.adam_beta2": (0, 1),
    "TrainingArguments.label_smoothing_factor": (0, 1),
    "TrainingArguments.max_grad_norm": (0, math.inf),
}
_POSITIVE = (
    "LoraConfig.r",
    "LoraConfig.lora_alpha",
    "TrainingArguments.per_device_train_batch_size",
    "TrainingArguments.gradient_accumulation_steps",
    "TrainingArguments.learning_rate",
    "TrainingArguments.num_train_epochs",
    "TrainingArguments.max_length",
    "TrainingArguments.max_seq_length",
    "TrainingArguments.save_steps",
    "TrainingArguments.logging_steps",
    "TrainingArguments.adam_epsilon",
)


@dataclass(frozen=True, slots=True)
class TrainingConfig:
    """The checked sections; a section that was not written is empty."""

    sections: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def get(self, section: str, key: str) -> Any | None:  # noqa: ANN401  (a YAML value)
        """Return the value as written, or None when the key was not written."""
        return self.sections.get(section, {}).get(key)


@cache
def known_keys() -> dict[str, dict[str, dict[str, Any]]]:
    """Return section -> kind (honoured, accepted, refused) -> key -> what the table says."""
    return dict(yaml.safe_load((files("presets") / "training_keys.yaml").read_text()))


def parse_training_config(text: str, method: str, subject: str) -> TrainingConfig:
    """Parse the YAML text of a training config for ``method`` (``lora`` or ``qlora``).

    Raises:
        InvalidInput: with every section, key and value that cannot be taken.
    """
    if len(text) > LONGEST_CHARACTERS:  # reading YAML is slow: a second for each such piece
        error = FieldError(
            "training_config", "TrainingConfigTooLong", f"It has {len(text)} characters.",
            f"Write no more than {LONGEST_CHARACTERS}: keys and values.",
        )  # fmt: skip
        raise InvalidInput(subject, [error])
    documents = load_yaml(text, subject)
    root = documents[0] if documents else {}
    config = root.get("training_config") if isinstance(root, dict) else None
    if not isinstance(config, dict):
        error = FieldError(
            "training_config", "InvalidTrainingConfig", "The key training_config must hold a map.",
            "Begin the file with training_config: and indent the sections below it.",
        )  # fmt: skip
        raise InvalidInput(subject, [error])
    errors = [*_section_errors(config), *_method_errors(config, method)]
    if errors:
        raise InvalidInput(subject, errors)
    return TrainingConfig({name: dict(section or {}) for name, section in config.items()})


def _section_errors(config: Mapping[str, Any]) -> Iterator[FieldError]:
    for name, section in config.items():
        if name not in SECTIONS:
            yield FieldError(
                f"training_config.{name}", "UnknownSection", f"There is no section {name!r}.",
                did_you_mean(str(name), SECTIONS, f"The sections are {', '.join(SECTIONS)}."),
            )  # fmt: skip
        elif section is not None and not isinstance(section, dict):
            yield FieldError(
                f"training_config.{name}",
                "InvalidValue",
                f"{name} must hold a map.",
                "Write key: value lines.",
            )
        else:
            for key, value in (section or {}).items():
                yield from _key_errors(name, str(key), value)


def _key_errors(section: str, key: str, value: Any) -> Iterator[FieldError]:  # noqa: ANN401
    field, table = f"training_config.{section}.{key}", known_keys()[section]
    for kind in ("honoured", "accepted", "refused"):
        entry = table.get(kind, {}).get(key)
        if entry is None:
            continue
        if kind == "refused":
            if value is not None and value not in entry.get("allow", ()):
                yield FieldError(field, "RefusedKey", f"{key} is not supported here: {entry['because']}.", "Remove it.")
        elif value is not None:
            expected = entry if isinstance(entry, str) else entry["type"]
            yield from _value_errors(f"{section}.{key}", value, expected)
        return
    candidates = [k for known in table.values() for k in known]
    others = [s for s in SECTIONS if s != section and any(key in keys for keys in known_keys()[s].values())]
    hint = f"It belongs to {others[0]}." if others else f"The keys of {section} are listed in docs/training-config.md."
    yield FieldError(
        field,
        "UnknownKey",
        f"{section} has no key {key!r}.",
        hint if others else did_you_mean(key, candidates, hint),
    )


def _value_errors(path: str, value: Any, expected: str) -> Iterator[FieldError]:  # noqa: ANN401
    field = f"training_config.{path}"
    if not _TYPES[expected](value):
        yield FieldError(field, "InvalidValue", f"{value!r} is not a {expected}.", f"Write a {expected}.")
    elif path in _CHOICES and value not in _CHOICES[path]:
        yield FieldError(
            field, "InvalidValue", f"{value!r} is not one of {', '.join(_CHOICES[path])}.", "Use one of them."
        )
    elif path in _POSITIVE and not value > 0:
        yield FieldError(field, "InvalidValue", f"{value!r} is not above zero.", "Write a positive number.")
    elif path in _RANGES and not _RANGES[path][0] <= value <= _RANGES[path][1]:
        low, high = _RANGES[path]
        yield FieldError(field, "InvalidValue", f"{value!r} is not in [{low}, {high}].", "Correct the number.")
    elif path == "TrainingArguments.max_steps" and not (value == -1 or value > 0):
        yield FieldError(field, "InvalidValue", f"{value!r} is no number of steps.", "Write -1 for whole epochs.")
    elif path == "LoraConfig.target_modules" and not value:
        yield FieldError(field, "InvalidValue", "No module is named.", "Name modules, or write all-linear.")
    elif path == "DatasetConfig.train_test_split" and not 0 < value <= 1:
        yield FieldError(
            field,
            "InvalidValue",
            f"{value!r} is not in (0, 1].",
            "Write the share to train on, such as 0.95.",
        )
    elif path == "TrainingArguments.output_dir" and not _stays_below_mnt(str(value)):
        yield FieldError(
            field,
            "InvalidValue",
            f"{value!r} leaves /mnt.",
            "Write a folder below /mnt, such as /mnt/results.",
        )
    elif path == "LoraConfig.lora_dropout" and not 0 <= value < 1:
        yield FieldError(field, "InvalidValue", f"{value!r} is not in [0, 1).", "Write for example 0.05.")


def _stays_below_mnt(output_dir: str) -> bool:
    """KAITO joins the folder to /mnt, whatever it begins with, and refuses what climbs out."""
    return posixpath.normpath("/mnt/" + output_dir).startswith("/mnt/")


def _method_errors(config: Mapping[str, Any], method: str) -> Iterator[FieldError]:
    """KAITO's rules between ``tuning.method`` and ``QuantizationConfig``."""
    section = config.get("QuantizationConfig")
    quantization = section if isinstance(section, dict) else {}
    four, eight = quantization.get("load_in_4bit") is True, quantization.get("load_in_8bit") is True
    field = "training_config.QuantizationConfig"
    if four and eight:
        yield FieldError(field, "Conflict", "load_in_4bit and load_in_8bit cannot both be true.", "Keep one.")
    if method == "lora" and (four or eight):
        yield FieldError(
            field,
            "Conflict",
            "method: lora trains on a base that is not quantised.",
            "Use method: qlora, or set both to false.",
        )
    if method == "qlora" and not (four or eight):
        yield FieldError(
            field,
            "Conflict",
            "method: qlora needs load_in_4bit or load_in_8bit to be true.",
            "Write QuantizationConfig: {load_in_4bit: true}.",
        )
