"""Which models can be tuned, and what is known of each?  One YAML file a model, checked when it is read.

Facts come from the models' own ``config.json`` at the pinned revision and from KAITO's catalogue
(v0.12 and v0.4). Models outside the catalogue work by their Hugging Face id; their shape is then unknown
until the weights are read.
"""

from functools import cache
from importlib.resources import files
from typing import Annotated

import yaml
from pydantic import BaseModel, ConfigDict, Field


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=False)


class Shape(_Frozen):
    """The numbers of the architecture that sizes follow from."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head: int  # width of one head
    intermediate: int  # width of the MLP
    vocabulary: int
    gated_mlp: bool  # three MLP matrices (gate, up, down) or two
    tied_embeddings: bool  # the output head is the embedding matrix

    @property
    def linear_parameters(self) -> int:
        """Parameters of the linear layers inside the decoder, biases and norms left out."""
        attention = self.hidden * self.head * (2 * self.heads + 2 * self.kv_heads)
        mlp = self.hidden * self.intermediate * (3 if self.gated_mlp else 2)
        return self.layers * (attention + mlp)

    @property
    def embedding_parameters(self) -> int:
        """Parameters of the embedding and the output head."""
        return self.vocabulary * self.hidden * (1 if self.tied_embeddings else 2)

    @property
    def parameters(self) -> int:
        """All parameters but biases and norms (under 0.1 % of a model)."""
        return self.linear_parameters + self.embedding_parameters


class Package(_Frozen):
    """A Python distribution that carries the weights."""

    name: str
    version: str
    file: str  # path below site-packages
    sha256: str


class Weights(_Frozen):
    """Where the weights may be read from, beside the Hugging Face hub."""

    kaito_tag: str | None = None  # tag of KAITO's weights image, <registry>/kaito-<name>
    package: Package | None = None


class Model(_Frozen):
    """One model of the catalogue."""

    name: str
    hugging_face_id: str
    revision: Annotated[str, Field(min_length=1)]
    license: str
    gated: bool
    architecture: str
    context_tokens: int
    chat_template: str  # "tokenizer": the model's own; else a file of presets/templates
    lora_targets: tuple[str, ...]
    shape: Shape | None
    weights: Weights = Weights()


@cache
def catalogue() -> dict[str, Model]:
    """Return all models by preset name, in alphabetical order."""
    folder = files("presets") / "models"
    texts = sorted((f.name, f.read_text()) for f in folder.iterdir() if f.name.endswith(".yaml"))
    models = [Model.model_validate(yaml.safe_load(text)) for _, text in texts]
    return {model.name: model for model in models}


@cache
def served_only() -> tuple[str, ...]:
    """Return the preset names that KAITO serves and kaiflow does not tune."""
    return tuple(yaml.safe_load((files("presets") / "kaito_served.yaml").read_text()))


def find_model(name: str) -> Model | None:
    """Return the model of a preset name or of a Hugging Face id; None when a plain name is unknown."""
    known = catalogue().get(name.lower())
    if known is not None or "/" not in name:
        return known
    by_id = {model.hugging_face_id.lower(): model for model in catalogue().values()}
    return by_id.get(name.lower()) or _from_hub(name)


def _from_hub(hugging_face_id: str) -> Model:
    """Describe a model of which only the id is known; its revision is pinned when the weights are read."""
    return Model(
        name=hugging_face_id,
        hugging_face_id=hugging_face_id,
        revision="main",
        license="unknown",
        gated=False,
        architecture="unknown",
        context_tokens=2048,
        chat_template="tokenizer",
        lora_targets=("all-linear",),
        shape=None,
    )


def chat_template_text(model: Model) -> str | None:
    """Return the bundled chat template of the model, or None when its tokenizer brings one."""
    if model.chat_template == "tokenizer":
        return None
    return (files("presets") / "templates" / model.chat_template).read_text()
