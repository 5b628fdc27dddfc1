"""Where an image came from, as a statement that others' tools read, attached to the image.

An in-toto Statement v1 with SLSA's provenance predicate v1 (https://slsa.dev/spec/v1.0/provenance), stored as an
artifact whose subject is the image. It says what the image's annotations say, rows and base by digest; it is not
signed: ``cosign attest --predicate`` takes the predicate. Nothing in it depends on when or where it was written.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from presets.errors import KaiflowError
from steps.store import Manifest, Store, canonical, publish

ARTIFACT_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://slsa.dev/provenance/v1"
BUILDER = "https://github.com/kaiflow/kaiflow"
BUILD_TYPE = f"{BUILDER}/blob/main/docs/artifacts.md#provenance-v1"
FILE = "provenance.intoto.json"
MOST_BYTES = 1 << 20


def attach(store: Store, image: Manifest, name: str) -> Manifest:
    """Attach the statement to the image of this store, whose ``name`` is its reference without a tag."""
    dataset = store.find(image.annotations.get("kaiflow.run.dataset", ""))
    data = canonical(statement(image, name, dataset.annotations if dataset else {}))
    with TemporaryDirectory() as folder:
        path = Path(folder) / FILE
        path.write_bytes(data)
        notes = {"in-toto.io/predicate-type": PREDICATE_TYPE}
        return publish(store, ARTIFACT_TYPE, {FILE: path}, notes, [], subject=image)


def statement(image: Manifest, name: str, dataset: Mapping[str, str]) -> dict[str, Any]:
    """Return the statement; ``dataset`` are the annotations of the rows, where they are at hand."""
    notes = image.annotations
    rows: dict[str, Any] = {"name": "dataset", "digest": _digest(notes["kaiflow.run.dataset"])}
    if dataset.get("kaiflow.dataset.sources"):
        rows["annotations"] = {"sources": dataset["kaiflow.dataset.sources"]}
    model = {"model": notes["kaiflow.model"], "revision": notes["kaiflow.model.revision"]}
    weights = {"name": "weights", "digest": _digest(notes["kaiflow.run.weights"]), "annotations": model}
    return {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": name, "digest": _digest(image.digest)}],
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": {
                    "workspace": notes["kaiflow.workspace"],
                    "model": notes["sh.kaito.model.name"],
                    "recipe": notes["kaiflow.run.recipe"],
                },
                "resolvedDependencies": [rows, weights],
            },
            "runDetails": {
                "builder": {"id": BUILDER, "version": {"kaiflow": notes["kaiflow.version"]}},
                "byproducts": [{"name": "run", "digest": _digest(notes["kaiflow.run"])}],
            },
        },
    }


def problems(store: Store, provenance: Manifest, image: Manifest) -> Iterator[str]:
    """Yield what the attached statement says otherwise than the image that it is attached to."""
    try:
        told = _read(store, provenance)
        said = {
            "its subject": told["subject"][0]["digest"],
            "the recipe": told["predicate"]["buildDefinition"]["externalParameters"]["recipe"],
            **{d["name"]: d["digest"] for d in told["predicate"]["buildDefinition"]["resolvedDependencies"]},
            **{d["name"]: d["digest"] for d in told["predicate"]["runDetails"]["byproducts"]},
        }
    except (KaiflowError, ValueError, LookupError, TypeError, RecursionError):
        yield "it is no provenance statement of kaiflow"
        return
    notes = image.annotations
    known = {
        "its subject": _digest(image.digest),
        "the recipe": notes.get("kaiflow.run.recipe"),
        "dataset": _digest(notes.get("kaiflow.run.dataset", "")),
        "weights": _digest(notes.get("kaiflow.run.weights", "")),
        "run": _digest(notes.get("kaiflow.run", "")),
    }
    for what, value in known.items():
        if said.get(what) != value:
            yield f"it names another one than the image does: {what}"


def _read(store: Store, provenance: Manifest) -> dict[str, Any]:
    layer = provenance.layers[0]
    if layer.size > MOST_BYTES:
        raise ValueError("a statement of more than 1 MiB")
    with store.open_blob(layer.digest) as reader:
        body = json.loads(reader.read(MOST_BYTES))
    if not isinstance(body, dict) or body["_type"] != STATEMENT_TYPE or body["predicateType"] != PREDICATE_TYPE:
        raise ValueError("another kind of statement")
    return body


def _digest(digest: str) -> dict[str, str]:
    """Return a digest as in-toto writes it."""
    algorithm, _, value = digest.partition(":")
    return {algorithm: value}
