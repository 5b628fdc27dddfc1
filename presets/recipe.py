"""Every value that a run needs, resolved and frozen, each with where it came from.

The Recipe is the one object that everything below passes on: after it there are no defaults, no
environment reads, and no value that means "not decided yet".
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, is_dataclass
from enum import StrEnum
from typing import Any, Literal


class Origin(StrEnum):
    """Who decided a value."""

    WORKSPACE = "workspace"
    TRAINING_CONFIG = "training config"
    PRESET = "preset"
    DEFAULT = "default"


@dataclass(frozen=True, slots=True)
class PackagedWeights:
    """Weights inside a Python distribution: the file below site-packages, and its digest."""

    name: str
    version: str
    file: str
    sha256: str


@dataclass(frozen=True, slots=True)
class ModelRecipe:
    """Which base model, and where its weights come from."""

    preset: str
    hugging_face_id: str
    revision: str
    license: str
    gated: bool
    context_tokens: int
    chat_template: str | None  # Jinja text; None: the tokenizer's own
    compute_dtype: str  # bfloat16, float16, float32 or auto
    weights_image: str | None  # an OCI image that holds the weights
    package: PackagedWeights | None  # None: the weights come from the hub
    access_secret: str | None  # a Secret with HF_TOKEN
    pull_secrets: tuple[str, ...] = ()  # Secrets for the image that holds the weights
    folder: str | None = None  # of this machine, that holds the weights


@dataclass(frozen=True, slots=True)
class DataRecipe:
    """Where the rows come from and how they are read, cleaned and split."""

    urls: tuple[str, ...]
    image: str | None
    pull_secrets: tuple[str, ...]
    volume_source: Mapping[str, Any] | None
    path: str | None  # only this file of the input
    context_column: str | None
    response_column: str | None
    messages_column: str | None
    shuffle: bool
    seed: int
    held_out_fraction: float


@dataclass(frozen=True, slots=True)
class AuditRecipe:
    """What the data must be like for a run to start."""

    max_bytes: int  # of one file
    max_bad_rows: float  # a share of all rows; so many are left out with a warning, more end the run
    max_cut_rows: float  # a share of the training rows that may lose tokens to the length limit
    near_duplicates: Literal["remove", "keep"]


@dataclass(frozen=True, slots=True)
class QuantizationRecipe:
    """How the frozen base is held in memory."""

    bits: Literal[4, 8, 16]
    quant_type: str
    double_quant: bool
    compute_dtype: str
    int8_threshold: float
    int8_skip_modules: tuple[str, ...]
    int8_has_fp16_weight: bool


@dataclass(frozen=True, slots=True)
class LoraRecipe:
    """The adapter; ``extra`` holds further LoraConfig keys as peft takes them."""

    r: int
    alpha: int
    dropout: float
    target_modules: str | tuple[str, ...]
    extra: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class TrainingRecipe:
    """The training loop; ``extra`` holds further TrainingArguments keys as transformers takes them."""

    epochs: float
    max_steps: int  # -1: as many as the epochs give
    batch_size: int  # packs (or rows, without packing) of one micro-step
    gradient_accumulation_steps: int
    learning_rate: float
    scheduler: str
    warmup: float  # below 1 a share of all steps, else steps
    max_length_tokens: int
    packing: bool
    assistant_only_loss: bool
    gradient_checkpointing: bool
    seed: int
    extra: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class EvaluationRecipe:
    """How base and tuned are compared before anything is published."""

    gate: Literal["off", "warn", "enforce"]
    sample_prompts: int  # questions answered before and after, greedily


@dataclass(frozen=True, slots=True)
class BudgetRecipe:
    """When the training must stop and pack the best that it has."""

    max_seconds: float | None  # of the tune step, all lives of a run that is interrupted together
    deadline_seconds: int  # of one pod


@dataclass(frozen=True, slots=True)
class OutputRecipe:
    """Where the adapter goes."""

    image: str | None
    push_secret: str | None
    volume_source: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class DeployRecipe:
    """Whether and how the result is served."""

    enabled: bool
    replicas: int
    runtime: str


@dataclass(frozen=True, slots=True)
class ScheduleRecipe:
    """When to tune again."""

    cron: str
    timezone: str
    only_if_changed: bool
    suspend: bool


@dataclass(frozen=True, slots=True)
class NodeRecipe:
    """Where the run goes on a cluster."""

    instance_type: str | None  # None: the cheapest that fits
    match_labels: Mapping[str, str]
    preferred_nodes: tuple[str, ...]
    fallback_instance_types: tuple[str, ...] = ()  # tried in this order
    zones: tuple[str, ...] = ()  # tried in this order; none: any
    spot: Literal["never", "first", "only"] | None = None  # None: as the cluster has it
    queue: str = ""  # Kueue's, of the pod that trains; empty: none


@dataclass(frozen=True, slots=True)
class Recipe:
    """One run, resolved."""

    name: str
    namespace: str
    uid: str
    revision: str  # of the Workspace: the first ten hex digits of the hash over its blocks
    method: Literal["lora", "qlora"]
    model: ModelRecipe
    data: DataRecipe
    audit: AuditRecipe
    quantization: QuantizationRecipe
    lora: LoraRecipe
    training: TrainingRecipe
    evaluation: EvaluationRecipe
    budget: BudgetRecipe
    output: OutputRecipe
    deploy: DeployRecipe
    schedule: ScheduleRecipe | None
    node: NodeRecipe
    origins: Mapping[str, Origin] = field(default_factory=dict)  # dotted path -> who decided it

    def values(self) -> Iterator[tuple[str, Any, Origin]]:
        """Yield every value as (dotted path, value, origin), in the order of the fields."""
        for name in (
            "method",
            "model",
            "data",
            "audit",
            "quantization",
            "lora",
            "training",
            "evaluation",
            "budget",
            "output",
            "deploy",
        ):
            part = getattr(self, name)
            if not is_dataclass(part):
                yield name, part, self.origins[name]
                continue
            for key, value in asdict(part).items():  # type: ignore[arg-type]  # an instance, not a class
                yield f"{name}.{key}", value, self.origins.get(f"{name}.{key}", Origin.DEFAULT)
