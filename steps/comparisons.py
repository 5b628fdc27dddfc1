"""How a training did against the one that was published when it ended: kept, for when the training is found again.

Without it a run that is found again would be judged against its base alone, and what an earlier gate has refused
would be published.
"""

from pathlib import Path

from steps.content_keys import ADAPTER_TYPE
from steps.store import Manifest, Store, canonical, publish

TYPE = "application/vnd.kaiflow.comparison.v1"
FILE = "comparison.json"
AGAINST = "kaiflow.run.against-published"


def _tag(key: str, published: str) -> str:
    return f"kaiflow-against-{key}-{published.removeprefix('sha256:')[:16]}"


def keep(store: Store, key: str, published: str, against: str, work: Path) -> None:
    """Remember how the training of ``key`` did against the run ``published``; before the training counts as done."""
    if not published:
        return
    notes = {AGAINST: against, "kaiflow.run.published": published}
    (work / FILE).write_bytes(canonical(notes))  # there are registries that take no artifact without a layer
    publish(store, TYPE, {FILE: work / FILE}, notes, [_tag(key, published)])


def known(store: Store, key: str, published: str, run: Manifest, gate: str) -> str | None:
    """Return how ``run``, the training of ``key``, did; empty where there is nothing to compare, or nobody asks.

    None: nobody has compared the two.
    """
    if published in ("", run.digest) or gate == "off" or not run.annotations.get("kaiflow.run.base-loss"):
        return ""
    other = store.find(published)
    if other is None or other.artifact_type != ADAPTER_TYPE:  # removed meanwhile
        return ""
    kept = store.find(_tag(key, published))
    return kept.annotations[AGAINST] if kept is not None and kept.artifact_type == TYPE else None
