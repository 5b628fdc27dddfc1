"""The parts of the Recipe that the tune step reads: quantisation, adapter, loop, budget; and their defaults."""

from collections.abc import Iterator

from presets.annotations import annotation_value
from presets.catalogue import Model
from presets.choice import Choice
from presets.errors import FieldError, InvalidInput
from presets.gpus import find_sku, skus
from presets.recipe import BudgetRecipe, LoraRecipe, Origin, QuantizationRecipe, TrainingRecipe
from presets.workspace import Workspace

DEFAULT_MAX_LENGTH_TOKENS = 1024
DEADLINE_SECONDS = 172800  # of a pod that trains, two days
HOUR = 3600
BESIDE_THE_LAYERS = ("lm_head", "embed_out", "embed_tokens", "word_embeddings")
FUSED = {  # a module, and the one that holds it in models that fuse
    "q_proj": "qkv_proj", "k_proj": "qkv_proj", "v_proj": "qkv_proj", "gate_proj": "gate_up_proj",
    "up_proj": "gate_up_proj",
}  # fmt: skip
OVERTIME = 1.1  # of a pod's deadline over the budget: the step itself stops in time
OVERTIME_SECONDS = 600
# Keys with a field of their own; the other honoured keys pass to the libraries as written.
_TRAINING_FIELDS = {
    "num_train_epochs", "max_steps", "per_device_train_batch_size", "gradient_accumulation_steps", "learning_rate",
    "lr_scheduler_type", "warmup_steps", "warmup_ratio", "max_length", "max_seq_length", "packing",
    "assistant_only_loss", "gradient_checkpointing", "activation_checkpointing", "seed",
}  # fmt: skip
_LORA_FIELDS = {"r", "lora_alpha", "lora_dropout", "target_modules"}


def quantization(method: str, choice: Choice) -> QuantizationRecipe:
    """Return how the base is held in memory."""
    section = "QuantizationConfig"
    eight = choice.config.get(section, "load_in_8bit") is True
    written = choice.config.get(section, "load_in_8bit" if eight else "load_in_4bit") is not None
    choice.origins["quantization.bits"] = Origin.TRAINING_CONFIG if written else Origin.WORKSPACE
    skip = choice.pick("quantization.int8_skip_modules", (), config=(section, "llm_int8_skip_modules"))
    return QuantizationRecipe(
        bits=16 if method == "lora" else 8 if eight else 4,
        quant_type=choice.pick("quantization.quant_type", "nf4", config=(section, "bnb_4bit_quant_type")),
        double_quant=choice.pick("quantization.double_quant", True, config=(section, "bnb_4bit_use_double_quant")),
        compute_dtype=choice.pick("quantization.compute_dtype", "bfloat16", config=(section, "bnb_4bit_compute_dtype")),
        int8_threshold=choice.pick("quantization.int8_threshold", 6.0, config=(section, "llm_int8_threshold")),
        int8_skip_modules=(skip,) if isinstance(skip, str) else tuple(skip),
        int8_has_fp16_weight=choice.pick(
            "quantization.int8_has_fp16_weight", False, config=(section, "llm_int8_has_fp16_weight")
        ),
    )


def lora(model: Model, choice: Choice) -> LoraRecipe:
    """Return the adapter."""
    section = "LoraConfig"
    r = choice.pick("lora.r", 8, config=(section, "r"))
    preset_targets = "all-linear" if model.lora_targets == ("all-linear",) else model.lora_targets
    targets = choice.pick(
        "lora.target_modules", "all-linear", config=(section, "target_modules"), preset=preset_targets
    )
    extra = choice.rest(section, _LORA_FIELDS)
    if extra:
        choice.origins["lora.extra"] = Origin.TRAINING_CONFIG
    return LoraRecipe(
        r=r,
        alpha=choice.pick("lora.alpha", 2 * r, config=(section, "lora_alpha")),
        dropout=choice.pick("lora.dropout", 0.0, config=(section, "lora_dropout")),
        target_modules=targets if isinstance(targets, str) else tuple(targets),
        extra=extra,
    )


def unknown_targets(lora: LoraRecipe, model: Model) -> Iterator[FieldError]:
    """Yield an error for every target module that the model does not have.

    peft only complains when it finds none of them: of the seven names that KAITO sets for Phi-3 it finds two, since
    that model has its projections fused, and the adapter is silently smaller than was asked for.
    """
    if isinstance(lora.target_modules, str) or model.shape is None:
        return  # all of them, or a pattern; or a model whose modules are not known
    for number, name in enumerate(lora.target_modules):
        last = name.rpartition(".")[2]
        if last in model.lora_targets or last in BESIDE_THE_LAYERS:
            continue
        known = FUSED.get(last)
        hint = f"Write {known}." if known in model.lora_targets else "Leave target_modules out: all of them are taken."
        yield FieldError(
            f"training_config.LoraConfig.target_modules[{number}]", "UnknownModule",
            f"{model.name} has no module {name}; it has {', '.join(model.lora_targets)}.", hint,
        )  # fmt: skip


def training(model: Model, choice: Choice) -> TrainingRecipe:
    """Return the training loop."""
    section = "TrainingArguments"
    extra = choice.rest(section, _TRAINING_FIELDS)
    if extra:
        choice.origins["training.extra"] = Origin.TRAINING_CONFIG
    return TrainingRecipe(
        epochs=choice.pick("training.epochs", 3, config=(section, "num_train_epochs")),
        max_steps=choice.pick("training.max_steps", -1, config=(section, "max_steps")),
        batch_size=choice.pick("training.batch_size", 1, config=(section, "per_device_train_batch_size")),
        gradient_accumulation_steps=choice.pick(
            "training.gradient_accumulation_steps", 1, config=(section, "gradient_accumulation_steps")
        ),
        learning_rate=choice.pick("training.learning_rate", 2e-4, config=(section, "learning_rate")),
        scheduler=choice.pick("training.scheduler", "linear", config=(section, "lr_scheduler_type")),
        warmup=choice.pick("training.warmup", 0.05, config=(section, "warmup_steps", "warmup_ratio")),
        max_length_tokens=choice.pick(
            "training.max_length_tokens",
            min(DEFAULT_MAX_LENGTH_TOKENS, model.context_tokens),
            config=(section, "max_length", "max_seq_length"),
        ),
        packing=choice.pick("training.packing", True, config=(section, "packing")),
        assistant_only_loss=choice.pick("training.assistant_only_loss", True, config=(section, "assistant_only_loss")),
        gradient_checkpointing=choice.pick(
            "training.gradient_checkpointing",
            False,
            config=(section, "gradient_checkpointing", "activation_checkpointing"),
        ),
        seed=choice.pick("training.seed", 42, config=(section, "seed")),
        extra=extra,
    )


def budget(workspace: Workspace, choice: Choice) -> BudgetRecipe:
    """Return how long the tune step may take: what it may cost, in hours of the machine that is named.

    Raises:
        InvalidInput: it may cost so much, and what the machine costs is not known.
    """
    annotations = workspace.metadata.annotations
    hours, cost = annotation_value(annotations, "max-hours"), annotation_value(annotations, "max-cost")
    if cost is not None:
        paid = cost / _hourly_price(workspace)
        hours = paid if hours is None else min(hours, paid)
    seconds = None if hours is None else round(hours * HOUR, 1)
    choice.pick("budget.max_seconds", None, workspace=seconds)
    deadline = DEADLINE_SECONDS
    if seconds is not None:
        deadline = min(deadline, round(seconds * OVERTIME) + OVERTIME_SECONDS)
    return BudgetRecipe(seconds, deadline)


def _hourly_price(workspace: Workspace) -> float:
    """Return the price of the dearest machine that may be taken, so that the run costs no more than it may."""
    fallbacks = annotation_value(workspace.metadata.annotations, "fallback-instance-types") or ()
    named = [name for name in (workspace.instance_type, *fallbacks) if name]
    table = skus()
    prices = {name: sku.price if (sku := find_sku(name, table)) else None for name in named}
    unknown = next((name for name, price in prices.items() if price is None), None)
    known = [price.usd_per_hour for price in prices.values() if price is not None]
    if known and unknown is None:
        return max(known)
    what = f"What {unknown} costs is not known" if unknown else "No machine is named whose price would be known"
    error = FieldError(
        "metadata.annotations[kaiflow.dev/max-cost]", "PriceUnknown", f"{what}.", "Set kaiflow.dev/max-hours instead."
    )
    raise InvalidInput(workspace.metadata.name, [error])
