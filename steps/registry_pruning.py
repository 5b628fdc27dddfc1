"""Which artifacts of a registry does nobody need, and for how long?

Registries do not tell how old a manifest is. So the first look writes down what was unneeded and when, as an artifact
of its own; what a later look still finds unneeded after so many days is removed. One look a day keeps it so.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from presets.errors import ConfigError, DataError
from presets.names import is_cache_tag, is_reserved_tag
from steps.pruning import DAY_SECONDS, Pruned, needed
from steps.registry_referrers import fallback_tag
from steps.registry_store import RegistryStore
from steps.store import Manifest, publish

MARKS_TAG, MARKS_TYPE, MARKS_FILE = "kaiflow-prune", "application/vnd.kaiflow.prune.v1", "marks.json"


@dataclass(frozen=True, slots=True)
class Look:
    """What one look at a registry found."""

    removed: list[Pruned]
    waiting: int  # unneeded, and not yet for long enough


def prune_registry(
    store: RegistryStore,
    now: float,
    older_than_days: float,
    *,
    needed_by: Sequence[RegistryStore] = (),
    dry: bool = False,
) -> Look:
    """Remove cache tags that no user's tag has led to for so many days; ``dry`` only tells, and writes nothing.

    A user's tag is never removed, nor what its image was made of, nor what tells of them. The images may be in other
    repositories, ``needed_by``: a cache has none of its own.

    Raises:
        ConfigError: the registry does not let manifests be deleted, or nothing tells what is needed.
    """
    tags = store.tags()
    own = needed(store, _users(tags))
    if not (own.adapters or needed_by):
        raise _nothing_needed(store.shown)
    kept = set(own.digests)
    for other in needed_by:
        images = _users(other.tags())
        theirs = needed(other, images)
        if not theirs.adapters:
            raise _nothing_needed(other.shown)
        kept |= theirs.digests | needed(store, {t: d for t, d in images.items() if d in tags.values()}).digests
    unneeded = {tag: d for tag, d in tags.items() if is_cache_tag(tag) and d not in kept}
    before = _marks(store)
    marks = {digest: min(before.get(digest, now), now) for digest in sorted(set(unneeded.values()))}
    old = {digest for digest, since in marks.items() if (now - since) / DAY_SECONDS >= older_than_days}
    removed = [Pruned(tag, digest, _size(store, digest)) for tag, digest in sorted(unneeded.items()) if digest in old]
    if not dry:
        _write_marks(store, {digest: since for digest, since in marks.items() if digest not in old}, before)
        for digest in sorted(old):
            _remove(store, digest, tags)
    return Look(removed, len(marks) - len(old))


def unmark(store: RegistryStore, digests: Collection[str]) -> None:
    """Forget since when artifacts have been unneeded: a run has just found them, and needs them."""
    marks = _marks(store)
    if marks.keys() & set(digests):
        _write_marks(store, {d: since for d, since in marks.items() if d not in digests}, marks)


def _nothing_needed(repository: str) -> ConfigError:
    return ConfigError(
        "NothingNeeded",
        f"{repository} holds no image that kaiflow has made for a user, so that it does not tell what is needed.",
        fix="Name the repositories of the images that are made of a cache: --needed-by registry/team/adapter.",
    )


def _users(tags: Mapping[str, str]) -> dict[str, str]:
    return {tag: digest for tag, digest in tags.items() if not is_reserved_tag(tag)}


def _remove(store: RegistryStore, digest: str, tags: Mapping[str, str]) -> None:
    """Remove what tells of the artifact, the list of that, then the artifact."""
    for manifest in store.referrers(digest):
        if manifest.digest not in tags.values():
            store.remove(manifest.digest)
    listed = tags.get(fallback_tag(digest))
    for each in (listed, digest) if listed else (digest,):
        if not store.remove(each):
            raise ConfigError(
                "DeletionOff",
                "The registry does not let manifests be deleted.",
                fix="Switch deletion on there (REGISTRY_STORAGE_DELETE_ENABLED=true), or use its own retention rules.",
            )


def _size(store: RegistryStore, digest: str) -> int:
    """Return the bytes of the artifact's files; the registry frees those that nothing else holds."""
    found = store.find(digest)
    return sum(layer.size for layer in found.layers) if found else 0


def _marks(store: RegistryStore) -> dict[str, float]:
    """Return digest -> since when it has been unneeded, as the last look wrote it."""
    found = store.find(MARKS_TAG)
    if found is None:
        return {}
    try:
        with store.open_blob(_only(found)) as reader:
            body = json.loads(reader.read())
        return {str(digest): float(since) for digest, since in body.items()}
    except (ValueError, AttributeError, TypeError):  # not ours: begin anew, which only keeps things for longer
        return {}


def _only(marks: Manifest) -> str:
    if len(marks.layers) != 1:
        raise DataError("ManifestInvalid", f"{MARKS_TAG} is not what prune writes.", fix="Remove that tag.")
    return marks.layers[0].digest


def _write_marks(store: RegistryStore, marks: Mapping[str, float], before: Mapping[str, float]) -> None:
    if marks == before:
        return
    with TemporaryDirectory() as folder:
        path = Path(folder) / MARKS_FILE
        path.write_text(json.dumps(marks, sort_keys=True))
        publish(store, MARKS_TYPE, {MARKS_FILE: path}, {}, [MARKS_TAG])
