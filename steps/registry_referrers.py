"""Which artifacts tell of another one?  The referrers of a digest, in registries that list them and in older ones.

distribution-spec 1.1: a manifest names its ``subject``; the registry lists those that name it and says so when it
takes one (``OCI-Subject``). A registry that does not gets the list as an index under the tag ``sha256-<hex>``, which
clients keep themselves ("referrers tag schema"): read, added to, written back.
"""

import json
from collections.abc import Mapping
from typing import Any

from presets.errors import DataError
from steps.registry import INDEX_TYPES, MANIFEST_TYPES, manifest_bytes
from steps.registry_client import Repository
from steps.store import DIGEST, MANIFEST_TYPE, Manifest, canonical

INDEX_TYPE = INDEX_TYPES[0]
SUBJECT_HEADER = "OCI-Subject"
MOST_PAGES = 100


def fallback_tag(digest: str) -> str:
    """Return the tag under which a registry without the referrers API keeps the list."""
    return digest.replace(":", "-")


def enter(at: Repository, manifest: Manifest) -> None:
    """Write a manifest with a subject into the list that the registry itself does not keep."""
    listed = _listed(at, manifest.subject)
    if any(entry["digest"] == manifest.digest for entry in listed):
        return
    entry = {
        "mediaType": MANIFEST_TYPE,
        "digest": manifest.digest,
        "size": manifest.size,
        "artifactType": manifest.artifact_type,
        "annotations": dict(manifest.annotations),
    }
    body = {"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": [*listed, entry]}
    url = f"{at.base}/manifests/{fallback_tag(manifest.subject)}"
    with at.asked(url, {"Content-Type": INDEX_TYPE}, method="PUT", data=canonical(body), good=(201,)):
        return


def referrers(at: Repository, digest: str) -> list[Manifest]:
    """Return the artifacts whose subject is ``digest``, in the order of their digests.

    Whatever the list says, a manifest that names another subject is left out.
    """
    found = _asked(at, digest)
    listed = _listed(at, digest) if found is None else found
    manifests = []
    for name in sorted({entry["digest"] for entry in listed}):
        try:
            manifest = Manifest.from_bytes(*manifest_bytes(at, name, MANIFEST_TYPES))
        except DataError:  # removed since, or an index: not one of ours
            continue
        if manifest.subject == digest:
            manifests.append(manifest)
    return manifests


def _asked(at: Repository, digest: str) -> list[dict[str, Any]] | None:
    """Return the registry's own list, None where it keeps none."""
    url, found = f"{at.base}/referrers/{digest}", []
    for _ in range(MOST_PAGES):
        data, url = at.page(url, INDEX_TYPE, strict=True)
        if data is None:
            return None
        found += _entries(data)
        if not url:
            break
    return found


def _listed(at: Repository, digest: str) -> list[dict[str, Any]]:
    """Return the list under the fallback tag, empty where there is none."""
    try:
        return _entries(manifest_bytes(at, fallback_tag(digest), INDEX_TYPES)[1])
    except DataError as error:
        if error.reason == "ImageNotFound":
            return []
        raise


def _entries(data: bytes) -> list[dict[str, Any]]:
    """Return the descriptors of an index; what is none is left out."""
    try:
        body = json.loads(data)
    except (ValueError, RecursionError):
        return []
    entries = body.get("manifests") if isinstance(body, Mapping) else None
    named = [entry for entry in entries or () if isinstance(entry, Mapping)] if isinstance(entries, list) else []
    return [dict(e) for e in named if isinstance(e.get("digest"), str) and DIGEST.fullmatch(e["digest"])]
