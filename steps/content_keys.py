"""The content keys of the steps: what is found again, and by exactly what of the Recipe that is decided.

Light, so that ``kaiflow plan`` says by the same keys what is finished already.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, is_dataclass
from typing import Any

from steps.contract import STEP_VERSIONS, Verb

ADAPTER_TYPE = "application/vnd.kaiflow.adapter.v1"  # what a training's tag names at last

Parts = Mapping[str, Any]  # of the Recipe, by name, as a step is told them

COLUMNS = ("path", "context_column", "response_column", "messages_column")
# What of the model and the training the audit depends on; another learning rate is no other audit.
AUDITED_MODEL = ("hugging_face_id", "revision", "chat_template", "package")
AUDITED_TRAINING = ("max_length_tokens", "assistant_only_loss")
# By which name a token lies where decides nothing, nor where the files do, whose digest counts.
NO_MATTER = ("access_secret", "pull_secrets", "folder")
PINNED_MODEL = ("hugging_face_id", "revision", "package", "weights_image", "folder")


def content_key(verb: Verb, **parts: Any) -> str:  # noqa: ANN401  (dataclasses, mappings, strings)
    """Return the cache key of a step: 32 hex digits over its version and exactly what it depends on."""
    plain = {name: asdict(part) if is_dataclass(part) else part for name, part in parts.items()}  # type: ignore[arg-type]
    text = json.dumps([verb, STEP_VERSIONS[verb], plain], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def dataset_tag(files: Iterable[tuple[str, str]], recipe: Parts) -> str:
    """Return the tag of the dataset that is made of ``files``, which are (name, sha256)."""
    return f"kaiflow-dataset-{content_key('fetch', files=list(files), **decides_dataset(recipe))}"


def decides_dataset(recipe: Parts) -> dict[str, Any]:
    """Return what of the Recipe decides what is made of the same files."""
    return {
        "columns": [recipe["data"][key] for key in COLUMNS],
        "split": [recipe["data"][key] for key in ("seed", "held_out_fraction")],
        "audit": recipe["audit"],
        "model": [recipe["model"][key] for key in AUDITED_MODEL],
        "training": [recipe["training"][key] for key in AUDITED_TRAINING],
    }


def weights_tag(origin: Parts, *, staged: bool) -> str:
    """Return the tag of the weights of that origin, or of the origin itself."""
    return f"kaiflow-weights-{content_key('weights', origin=origin, staged=staged)}"


def decides_weights(recipe: Parts) -> dict[str, Any]:
    """Return what of the Recipe decides where the weights come from."""
    return {key: recipe["model"][key] for key in PINNED_MODEL}


def run_key(recipe: Parts, weights: str, content: str, processes: int) -> str:
    """Return the key of a training: the rows (``content``), the base, and every part of the Recipe that it reads."""
    return content_key("tune", content=content, weights=weights, **decides_training(recipe, processes))


def run_tag(key: str) -> str:
    """Return the tag of a training's newest checkpoint, and at last of its adapter."""
    return f"kaiflow-run-{key}"


def decides_training(recipe: Parts, processes: int) -> dict[str, Any]:
    """Return what of the Recipe decides what is learned.

    Each process takes a batch of its own, so that a step of two is another one than a step of one.
    """
    model = {key: value for key, value in recipe["model"].items() if key not in NO_MATTER}
    parts = {"model": model, **{name: recipe[name] for name in ("quantization", "lora", "training")}}
    order = [recipe["data"][name] for name in ("shuffle", "seed")]
    return {**parts, "shuffle": order, **({"processes": processes} if processes > 1 else {})}


def assembled_tag(annotations: Mapping[str, str], created: str) -> str:
    """Return the tag of an image: what it says of itself, its run included, and when it was made."""
    return f"kaiflow-image-{content_key('push', annotations=annotations, created=created)}"
