"""fetch: the dataset, from wherever it is, audited and split, in the store.

Runs on a CPU before any GPU is asked for: data that cannot be trained on ends the run here.
"""

import json
from dataclasses import asdict
from pathlib import Path

from presets.errors import ConfigError
from presets.recipe import DataRecipe
from steps import logs
from steps.contract import Context, Request, Result, content_key
from steps.dataset import HELD_OUT_FILE, TRAIN_FILE, Audit, prepare
from steps.sources import SourceFile, collect, describe
from steps.store import Manifest, Store, open_store, publish

ARTIFACT_TYPE = "application/vnd.kaiflow.dataset.v1"
AUDIT_FILE = "audit.json"


def run(request: Request, context: Context) -> Result:
    """Fetch, audit, de-duplicate, split, store; nothing but the download when the store has it already."""
    data = request.part("data", DataRecipe)
    if not data.urls:
        raise ConfigError(
            "SourceNotSupported",
            "This version reads datasets from URLs only.",
            fix="Give tuning.input.urls; images and volumes follow.",
        )
    store = open_store(request.store)
    files = collect(data.urls, context.work / "downloads", request.target, context.progress)
    tag = f"kaiflow-dataset-{_key(files, data)}"
    known = store.find(tag)
    if known is not None:
        logs.event("reused", dataset=known.digest)
        return _result(known, cached=True)
    audit = prepare(((f.path, f.sha256) for f in files), data, context.work / "data")
    return _result(_store(store, audit, data, context.work / "data", tag), cached=False)


def _key(files: list[SourceFile], data: DataRecipe) -> str:
    names = [(f.name, f.sha256) for f in files]
    columns = (data.path, data.context_column, data.response_column, data.messages_column)
    return content_key("fetch", files=names, columns=columns, seed=data.seed, split=data.held_out_fraction)


def _store(store: Store, audit: Audit, data: DataRecipe, folder: Path, tag: str) -> Manifest:
    (folder / AUDIT_FILE).write_text(json.dumps(asdict(audit), indent=1, sort_keys=True))
    logs.event("audited", **asdict(audit))
    annotations = {
        "kaiflow.dataset.sources": " ".join(describe(url) for url in data.urls),
        "kaiflow.dataset.rows": str(audit.rows_train),
        "kaiflow.dataset.held-out-rows": str(audit.rows_held_out),
    }
    names = (TRAIN_FILE, HELD_OUT_FILE, AUDIT_FILE)
    return publish(store, ARTIFACT_TYPE, {name: folder / name for name in names}, annotations, [tag])


def _result(dataset: Manifest, *, cached: bool) -> Result:
    return Result(
        outputs={
            "dataset": dataset.digest,
            "rows": dataset.annotations["kaiflow.dataset.rows"],
            "held-out-rows": dataset.annotations["kaiflow.dataset.held-out-rows"],
            "cached": str(cached).lower(),
        },
    )
