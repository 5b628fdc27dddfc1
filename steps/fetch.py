"""fetch: the dataset, from wherever it is, audited and split, in the store.

Runs on a CPU before any GPU is asked for: data that cannot be trained on ends the run here.
"""

import hashlib
import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from presets.errors import KaiflowError
from presets.recipe import AuditRecipe, DataRecipe, ModelRecipe, TrainingRecipe
from steps import logs
from steps.audit import Audit, Finding
from steps.audit_page import page
from steps.base_tokenizer import TokenizerMissing, load_tokenizer, tokenizer_digests
from steps.content_keys import dataset_tag
from steps.contract import Context, Request, Result
from steps.dataset import prepare
from steps.sources import Collected, collect
from steps.split import HELD_OUT_FILE, TRAIN_FILE
from steps.store import Manifest, Store, open_store, publish
from steps.token_meter import TokenMeter

ARTIFACT_TYPE = "application/vnd.kaiflow.dataset.v1"
AUDIT_FILE, PAGE_FILE = "audit.json", "audit.html"


def run(request: Request, context: Context) -> Result:
    """Fetch, audit, de-duplicate, split, store; nothing but the question for a newer version when all is there.

    Raises:
        DataError: the data cannot be trained on; the audit lies in the work folder all the same.
    """
    data, rules = request.part("data", DataRecipe), request.part("audit", AuditRecipe)
    store = open_store(request.store)
    collected = collect(data, rules, context.work / "downloads", request.target, context.progress)
    model = request.part("model", ModelRecipe)
    files = [(source.name, source.sha256) for source in collected.files]
    tag = dataset_tag([*files, *tokenizer_digests(model)], request.recipe)
    known = store.find(tag)
    if known is not None:
        logs.event("reused", dataset=known.digest)
        return _result(known, _published(request), cached=True)
    folder = context.work / "data"
    training = request.part("training", TrainingRecipe)
    audit = measured(collected, data, rules, model, training, folder)
    _write(audit, folder, _title(collected))
    logs.event("audited", **_told(audit))
    audit.require_usable()
    result = _result(_store(store, audit, collected, folder, tag), _published(request), cached=False)
    shutil.rmtree(folder)  # the store holds the only copy
    return result


def measured(
    collected: Collected,
    data: DataRecipe,
    rules: AuditRecipe,
    model: ModelRecipe,
    training: TrainingRecipe,
    folder: Path,
) -> Audit:
    """Return what is in the files, the two sides written below ``folder``."""
    with ThreadPoolExecutor(1) as beside:  # the tokenizer comes while the rows are read
        loading = beside.submit(load_tokenizer, model, folder.parent)

        def meter() -> TokenMeter | None:
            try:
                tokenizer = loading.result()
            except TokenizerMissing:
                return None
            return TokenMeter(tokenizer, training.max_length_tokens, assistant_only=training.assistant_only_loss)

        audit = prepare(collected.files, data, rules, meter, folder)
        missing = loading.exception()
    audit.skipped_files = collected.skipped
    if isinstance(missing, TokenizerMissing):
        what = f"The rows were not measured in tokens: {missing}."
        audit.findings.append(Finding("warning", "TokenizerMissing", what, "The training cuts what is too long."))
    elif missing is not None:
        raise missing
    return audit


def _write(audit: Audit, folder: Path, title: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / AUDIT_FILE).write_text(json.dumps(audit.to_json(), indent=1, sort_keys=True))
    (folder / PAGE_FILE).write_text(page(audit, title))


def _title(collected: Collected) -> str:
    """Return what the page is called: by the data alone, so that the same data gives the same page."""
    first, *others = [source.name for source in collected.files]
    return f"{first} and {len(others)} more" if others else first


def _told(audit: Audit) -> dict[str, object]:
    """Return what the log line says: figures and findings, no rows."""
    counts = ("duplicates", "near_duplicates", "rows_train", "rows_held_out") if audit.sorted_out else ()
    figures = ("rows_read", "rows_bad", *counts, "characters")
    tokens = asdict(audit.tokens) if audit.tokens else {}
    lengths = {f"tokens_{name}": tokens[name] for name in ("p50", "p95", "longest", "cut_rows") if name in tokens}
    findings = [f"{finding.severity}: {finding.message}" for finding in audit.findings]
    shapes = sorted({f"{file.shape}: {file.shape_reason}" for file in audit.files})
    return {**{name: getattr(audit, name) for name in figures}, **lengths, "shapes": shapes, "findings": findings}


def _store(store: Store, audit: Audit, collected: Collected, folder: Path, tag: str) -> Manifest:
    annotations = {
        "kaiflow.dataset.sources": " ".join(collected.versions),
        "kaiflow.dataset.rows": str(audit.rows_train),
        "kaiflow.dataset.held-out-rows": str(audit.rows_held_out),
        "kaiflow.dataset.content": _content(folder),
    }
    names = (TRAIN_FILE, HELD_OUT_FILE, AUDIT_FILE, PAGE_FILE)
    return publish(store, ARTIFACT_TYPE, {name: folder / name for name in names}, annotations, [tag])


def _content(folder: Path) -> str:
    """Return the digest of the rows alone: another audit of the same rows trains the same."""
    digest = hashlib.sha256()
    for name in (TRAIN_FILE, HELD_OUT_FILE):
        with (folder / name).open("rb") as reader:
            digest.update(hashlib.file_digest(reader, "sha256").digest())
    return f"sha256:{digest.hexdigest()}"


@dataclass(frozen=True, slots=True)
class Published:
    """What the last good run has published: its training, and the rows that it was of."""

    run: str = ""
    dataset: str = ""
    only_if_changed: bool = False


def _published(request: Request) -> Published:
    """Return what a run of the schedule is compared with; nothing where the run is another, or nothing is there."""
    if request.inputs["scheduled"] != "true":
        return Published()
    only_if_changed = request.inputs["only-if-changed"] == "true"
    try:
        image = open_store(request.inputs["published-store"]).find(request.inputs["published-tag"])
    except KaiflowError as error:  # then it is tuned: the push says what is wrong with the registry
        logs.warning("published_unknown", reason=error.reason, message=error.message)
        image = None
    notes = image.annotations if image else {}
    return Published(notes.get("kaiflow.run", ""), notes.get("kaiflow.run.dataset", ""), only_if_changed)


def _result(dataset: Manifest, published: Published, *, cached: bool) -> Result:
    same = published.only_if_changed and published.dataset == dataset.digest
    if same:
        logs.event("nothing_new", dataset=dataset.digest)
    return Result(
        outputs={
            "dataset": dataset.digest,
            "rows": dataset.annotations["kaiflow.dataset.rows"],
            "held-out-rows": dataset.annotations["kaiflow.dataset.held-out-rows"],
            "changed": str(not same).lower(),
            "published": published.run,
            "cached": str(cached).lower(),
        },
    )
