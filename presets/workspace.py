"""The Workspace: KAITO's schema, both versions, and the three blocks that kaiflow adds under ``tuning``.

Field names, defaults and meanings are KAITO v0.12's (``api/v1beta1/workspace_types.go``); ``schedule``,
``evaluation`` and ``deploy`` are ours. The types say what may be written; ``presets.rules`` says what
makes sense. Parse with :func:`presets.manifest.read_manifests`, which reports every error with its path.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

API_VERSIONS = ("kaito.sh/v1alpha1", "kaito.sh/v1beta1")
DEFAULT_INSTANCE_TYPE_V1ALPHA1 = "Standard_NC24ads_A100_v4"


class Block(BaseModel):
    """A part of the object: camelCase in YAML, unknown fields refused, frozen."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True, strict=True)


class Metadata(BaseModel):
    """What kaiflow reads of ``metadata``; everything else passes through."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True, populate_by_name=True)

    name: str = ""
    namespace: str = "default"
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)
    uid: str = ""
    generation: int = 1


class LabelRequirement(Block):
    """One ``matchExpressions`` entry; KAITO takes only ``In`` with one value."""

    key: str
    operator: str
    values: tuple[str, ...] = ()


class LabelSelector(Block):
    """Which nodes belong to this Workspace."""

    match_labels: dict[str, str] = Field(default_factory=dict)
    match_expressions: tuple[LabelRequirement, ...] = ()


class Partition(Block):
    """A slice of a GPU; inference only."""

    mode: Literal["mig", "accelerator"]
    profile: str = ""
    count: Annotated[int, Field(ge=1)] = 1


class Resource(Block):
    """The machines to run on."""

    count: int = 1
    instance_type: str | None = None
    label_selector: LabelSelector
    preferred_nodes: tuple[str, ...] = ()
    partition: Partition | None = None


class PresetOptions(Block):
    """Where the weights come from, when not from the catalogue."""

    image: str | None = None
    image_pull_secrets: tuple[str, ...] = ()
    model_access_secret: str | None = None


class Preset(Block):
    """A model by its catalogue name or its Hugging Face id."""

    name: str
    access_mode: Literal["public", "private"] = "public"
    preset_options: PresetOptions = PresetOptions()


class DataSource(Block):
    """Where data (or an adapter) is read from: exactly one of ``urls``, ``image``, ``volumeSource``."""

    name: str | None = None
    urls: tuple[str, ...] = ()
    volume_source: dict[str, Any] | None = None
    image: str | None = None
    image_pull_secrets: tuple[str, ...] = ()


class DataDestination(Block):
    """Where the adapter goes: exactly one of ``image``, ``volumeSource``."""

    volume_source: dict[str, Any] | None = None
    image: str | None = None
    image_push_secret: str | None = None


class Schedule(Block):
    """When to tune again."""

    cron: str
    timezone: str = "Etc/UTC"
    only_if_changed: bool = True
    suspend: bool = False


class Evaluation(Block):
    """How the tuned model is compared with its base on rows that training never saw."""

    split: Annotated[float, Field(ge=0, lt=1)] | None = None
    gate: Literal["off", "warn", "enforce"] | None = None


class Deploy(Block):
    """Whether and how the tuned model is served after the push."""

    enabled: bool = True
    replicas: Annotated[int, Field(ge=1)] = 1
    runtime: Literal["auto", "vllm", "transformers"] = "auto"


class Tuning(Block):
    """Fine-tune a preset on data."""

    preset: Preset | None = None
    method: str | None = None
    config: str | None = None
    input: DataSource | None = None
    output: DataDestination | None = None
    schedule: Schedule | None = None
    evaluation: Evaluation = Evaluation()
    deploy: Deploy = Deploy()


class AdapterSpec(Block):
    """An adapter to serve beside the base."""

    source: DataSource | None = None
    strength: str | None = None


class Inference(Block):
    """Serve a preset or a pod template."""

    preset: Preset | None = None
    template: dict[str, Any] | None = None
    config: str | None = None
    adapters: tuple[AdapterSpec, ...] = ()


class Workspace(Block):
    """KAITO's ``kaito.sh`` Workspace; there is no ``spec``."""

    api_version: Literal["kaito.sh/v1alpha1", "kaito.sh/v1beta1"]
    kind: Literal["Workspace"]
    metadata: Metadata
    resource: Resource | None = None
    tuning: Tuning | None = None
    inference: Inference | None = None
    status: dict[str, Any] | None = None

    @property
    def instance_type(self) -> str | None:
        """The SKU asked for; v1alpha1's schema has a default, v1beta1's has none."""
        named = self.resource.instance_type if self.resource else None
        if named is None and self.api_version.endswith("v1alpha1"):
            return DEFAULT_INSTANCE_TYPE_V1ALPHA1
        return named or None

    @property
    def runs_without_cluster_data(self) -> bool:
        """Whether any dataset URL can be read only on the machine that runs ``kaiflow``."""
        urls = self.tuning.input.urls if self.tuning and self.tuning.input else ()
        return any(url.startswith(("file://", "pkg://")) for url in urls)
