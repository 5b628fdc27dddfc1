"""Which artifacts does nobody need?  Cache tags that no tag of the user's leads to, and that are old enough."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from presets.errors import DataError
from presets.names import is_cache_tag
from steps.layout_index import named_blobs
from steps.lineage import MADE_OF, RUN
from steps.oci_layout import LayoutStore
from steps.store import DIGEST, Store

DAY_SECONDS = 86400


@dataclass(frozen=True, slots=True)
class Pruned:
    """A cache tag that was removed."""

    tag: str
    digest: str
    freed_bytes: int


@dataclass(frozen=True, slots=True)
class Needs:
    """What is needed, and how many adapters say so."""

    digests: set[str]
    adapters: int


def prune(store: LayoutStore, now: float, older_than_days: float, *, dry: bool = False) -> list[Pruned]:
    """Remove cache tags that no user's tag leads to and that are older than so many days; ``dry`` only tells.

    A user's tag is never removed, nor what its image was made of: run, rows, base.

    Raises:
        DataError: an image of the user's cannot be read, so that it does not tell what it was made of.
    """
    tags = store.tags()
    kept = needed(store, {tag: digest for tag, digest in tags.items() if not is_cache_tag(tag)}).digests
    pruned = []
    for tag, digest in sorted(tags.items()):
        age_days = (now - store.written_at(digest)) / DAY_SECONDS
        if not is_cache_tag(tag) or digest in kept or age_days < older_than_days:
            continue
        freed = store.size_alone(digest, tag)
        if not dry:
            store.untag(tag)
        pruned.append(Pruned(tag, digest, freed))
    return pruned


def needed(store: Store, tags: Mapping[str, str]) -> Needs:
    """Return what the adapters under ``tags`` (tag -> digest) were made of, and what tells of them.

    Raises:
        DataError: an image cannot be read, so that it does not tell what it was made of.
        KaiflowError: the store does not answer.
    """
    kept: set[str] = set()
    adapters = 0
    waiting = [(tag, digest, True) for tag, digest in tags.items()]
    while waiting:
        tag, digest, named = waiting.pop()
        if digest in kept:
            continue
        kept.add(digest)
        data = store.raw(digest)
        if data is None and named:
            raise DataError(
                "ArtifactCorrupt", f"{tag} names an image that cannot be read: nothing is removed.",
                fix="Look at it with kaiflow verify; push it again, or remove the tag.",
            )  # fmt: skip
        body = _json(data)
        images, _ = named_blobs(body)
        waiting += [(tag, image, False) for image in images if DIGEST.fullmatch(image)]  # of an index
        notes = body.get("annotations")
        run = notes.get(RUN) if isinstance(notes, Mapping) else None
        if isinstance(notes, Mapping) and isinstance(run, str):
            adapters += 1
            kept |= {run, *(notes[key] for key in MADE_OF if isinstance(notes.get(key), str))}
            kept |= {m.digest for each in (digest, run) for m in store.referrers(each)}
    return Needs(kept, adapters)


def _json(data: bytes | None) -> Mapping[str, Any]:
    try:
        body = json.loads(data or b"{}")
    except (ValueError, RecursionError):  # of whatever kind: it is the user's
        return {}
    return body if isinstance(body, Mapping) else {}
