"""Which artifacts does nobody need?  Cache tags that no tag of the user's leads to, and that are old enough."""

from collections.abc import Iterable
from dataclasses import dataclass

from presets.errors import KaiflowError
from presets.names import is_cache_tag
from steps.lineage import lineage, walked
from steps.oci_layout import LayoutStore
from steps.store import Store

DAY_SECONDS = 86400


@dataclass(frozen=True, slots=True)
class Pruned:
    """A cache tag that was removed."""

    tag: str
    digest: str
    freed_bytes: int


def prune(store: LayoutStore, now: float, older_than_days: float, *, dry: bool = False) -> list[Pruned]:
    """Remove cache tags that no user's tag leads to and that are older than so many days; ``dry`` only tells.

    A user's tag is never removed, nor what its image was made of: run, rows, base.
    """
    tags = store.tags()
    kept = needed(store, (tag for tag in tags if not is_cache_tag(tag)))
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


def needed(store: Store, tags: Iterable[str]) -> set[str]:
    """Return the digests of all that the adapters under ``tags`` were made of, and of what tells of them."""
    found: set[str] = set()
    for tag in tags:
        try:
            found |= {link.digest for _, link in walked(lineage(store, tag))}
        except KaiflowError:  # not an adapter: an image that somebody else has put here
            continue
    return found
