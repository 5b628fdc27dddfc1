"""The Workspace: KAITO's schema, both versions, and the three blocks that kaiflow adds under ``tuning``.

Field names, defaults and meanings are KAITO v0.12's (``api/v1beta1/workspace_types.go``); ``schedule``,
``evaluation`` and ``deploy`` are ours. The types say what may be written; ``presets.rules`` says what
makes sense. Parse with :func:`presets.manifest.read_manifests`, which reports every error with its path.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

QUEUE_LABEL = "kueue.x-k8s.io/queue-name"  # passes through to the pod that trains
API_VERSIONS = ("kaito.sh/v1alpha1", "kaito.sh/v1beta1")
DEFAULT_INSTANCE_TYPE_V1ALPHA1 = "Standard_NC24ads_A100_v4"


# Bounded, since an API server refuses rules of what could be of any length.
ObjectName = Annotated[str, Field(max_length=253)]
ImageName = Annotated[str, Field(max_length=512)]
Secrets = Annotated[tuple[ObjectName, ...], Field(max_length=16)]


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
    """Label that the node must carry."""
    operator: str
    """Only In is taken."""
    values: tuple[str, ...] = ()
    """Exactly one value."""


class LabelSelector(Block):
    """Which nodes belong to this Workspace."""

    match_labels: Annotated[dict[str, str], Field(max_length=64)] = Field(default_factory=dict)
    """Labels that the node must carry; nodes that are made get them."""
    match_expressions: Annotated[tuple[LabelRequirement, ...], Field(max_length=64)] = ()
    """The same as expressions, each In with one value."""


class Partition(Block):
    """A slice of a GPU; inference only."""

    mode: Literal["mig", "accelerator"]
    """How the GPU is cut."""
    profile: str = ""
    """Profile of the slice, as the GPU operator names it."""
    count: Annotated[int, Field(ge=1)] = 1
    """How many slices."""


class Resource(Block):
    """The machines to run on."""

    count: int = 1
    """How many nodes; tuning runs on one."""
    instance_type: Annotated[str, Field(max_length=64)] | None = None
    """Machine type with the GPUs, in any case; left out: the cheapest that fits."""
    label_selector: LabelSelector
    """Which nodes belong to this Workspace."""
    preferred_nodes: tuple[str, ...] = ()
    """Names of given nodes to choose first."""
    partition: Partition | None = None
    """A slice of a GPU; inference only."""


class PresetOptions(Block):
    """Where the weights come from, when not from the catalogue."""

    image: ImageName | None = None
    """OCI image that holds the weights as safetensors; by digest it can be mounted."""
    image_pull_secrets: Secrets = ()
    """Secrets of type kubernetes.io/dockerconfigjson for that image."""
    model_access_secret: ObjectName | None = None
    """Secret with the key HF_TOKEN, for gated models."""


class Preset(Block):
    """A model by its catalogue name or its Hugging Face id."""

    name: Annotated[str, Field(max_length=256)]
    """Name of the catalogue (kaiflow presets), or a Hugging Face id, organisation/model."""
    access_mode: Literal["public", "private"] = "public"
    """public, or private with presetOptions.image."""
    preset_options: PresetOptions = PresetOptions()
    """Where the weights come from, when not from the catalogue."""


class DataSource(Block):
    """Where data (or an adapter) is read from: exactly one of ``urls``, ``image``, ``volumeSource``."""

    name: ObjectName | None = None
    """Name of the source; it cannot be changed."""
    urls: Annotated[tuple[Annotated[str, Field(max_length=4096)], ...], Field(max_length=512)] = ()
    """Files over https, http, hf, s3, gs or az; a digest may follow as #sha256=."""
    volume_source: dict[str, Any] | None = None
    """A volume, written as in a pod."""
    image: ImageName | None = None
    """OCI image with the files under /data, or pushed by oras."""
    image_pull_secrets: Secrets = ()
    """Secrets of type kubernetes.io/dockerconfigjson for the image."""


class DataDestination(Block):
    """Where the adapter goes: exactly one of ``image``, ``volumeSource``."""

    volume_source: dict[str, Any] | None = None
    """A volume, written as in a pod; the adapter lies there in an OCI image layout."""
    image: ImageName | None = None
    """registry/repository:tag of the adapter image."""
    image_push_secret: ObjectName | None = None
    """Secret of type kubernetes.io/dockerconfigjson whose user may push there."""


class Schedule(Block):
    """When to tune again."""

    cron: Annotated[str, Field(max_length=256)]
    """Five fields, or @weekly and the like."""
    timezone: Annotated[str, Field(max_length=64)] = "Etc/UTC"
    """Name of the tz database."""
    only_if_changed: bool = True
    """Tune only when the data has changed since the last run."""
    suspend: bool = False
    """Whether no run is started for now."""


class Evaluation(Block):
    """How the tuned model is compared with its base on rows that training never saw."""

    split: Annotated[float, Field(ge=0, lt=1)] | None = None
    """Share of the rows that is held out; 0.05 where nothing is said."""
    gate: Literal["off", "warn", "enforce"] | None = None
    """Whether a tuned model that is not better is published: off, warn, enforce (the default with a schedule)."""


class Deploy(Block):
    """Whether and how the tuned model is served after the push."""

    enabled: bool = True
    """Whether the tuned model is served."""
    replicas: Annotated[int, Field(ge=1)] = 1
    """How many servers."""
    runtime: Literal["auto", "vllm", "transformers"] = "auto"
    """auto: on the node that has trained, its GPU too; transformers: on a CPU; vllm: not yet."""


class Tuning(Block):
    """Fine-tune a preset on data."""

    preset: Preset | None = None
    """The model to tune."""
    method: Annotated[str, Field(max_length=16)] | None = None
    """qlora (the base in four bits) or lora."""
    config: ObjectName | None = None
    """ConfigMap with the key training_config.yaml."""
    input: DataSource | None = None
    """Where the rows are."""
    output: DataDestination | None = None
    """Where the adapter goes."""
    schedule: Schedule | None = None
    """When to tune again."""
    evaluation: Evaluation = Evaluation()
    """How the tuned model is compared with its base."""
    deploy: Deploy = Deploy()
    """Whether and how the tuned model is served."""


class AdapterSpec(Block):
    """An adapter to serve beside the base."""

    source: DataSource | None = None
    """Where the adapter is: an image, or a volume."""
    strength: Annotated[str, Field(max_length=32)] | None = None
    """Weight of the adapter, 0 to 1, as text."""


class Inference(Block):
    """Serve a preset or a pod template."""

    preset: Preset | None = None
    """The model to serve."""
    template: dict[str, Any] | None = None
    """A pod template to serve with, instead of a preset."""
    config: str | None = None
    """ConfigMap with the server's settings."""
    adapters: Annotated[tuple[AdapterSpec, ...], Field(max_length=16)] = ()
    """Adapters to serve beside the base."""


class Workspace(Block):
    """KAITO's ``kaito.sh`` Workspace; there is no ``spec``."""

    api_version: Literal["kaito.sh/v1alpha1", "kaito.sh/v1beta1"]
    kind: Literal["Workspace"]
    metadata: Metadata
    resource: Resource | None = None
    """The machines to run on."""
    tuning: Tuning | None = None
    """Fine-tune a preset on data; either this or inference."""
    inference: Inference | None = None
    """Serve a preset or a pod template; either this or tuning."""
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
