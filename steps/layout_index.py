"""The index of an OCI image layout: what is in it under which names, others' entries kept as they are.

An entry that is not ours may be an index of images, carry a platform, or a digest of another kind: all of it is written
back as it was read.
"""

import json
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from presets.errors import DataError
from steps.store import Descriptor

REF_NAME = "org.opencontainers.image.ref.name"
INDEX_TYPE = "application/vnd.oci.image.index.v1+json"
INDEX_FILE = "index.json"

Entry = Mapping[str, Any]


class LayoutIndex:
    """The entries of ``index.json``, in their order, and whatever else it says."""

    def __init__(self, entries: list[Entry], rest: Mapping[str, Any]) -> None:
        self._entries, self._rest = entries, rest

    @classmethod
    def read(cls, root: Path) -> "LayoutIndex":
        """Read the index of the layout; an empty one where there is none.

        Raises:
            DataError: it is no index.
        """
        try:
            body = json.loads((root / INDEX_FILE).read_bytes())
        except FileNotFoundError:
            return cls([], {})
        except (ValueError, RecursionError):
            body = None
        whole = body if isinstance(body, dict) else {}
        entries = whole.get("manifests")
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise DataError(
                "LayoutInvalid", f"{root / INDEX_FILE} is no index of an OCI layout.", fix="Restore it, or remove it."
            )
        return cls(entries, {key: value for key, value in whole.items() if key != "manifests"})

    def to_bytes(self) -> bytes:
        """Return the file's bytes."""
        body = {"schemaVersion": 2, "mediaType": INDEX_TYPE, **self._rest, "manifests": self._entries}
        return json.dumps(body, indent=1).encode()

    def tags(self) -> dict[str, str]:
        """Return tag -> digest."""
        return {tag: d.digest for entry, d in self._known() if (tag := _tag(entry))}

    def has_tag(self, tag: str) -> bool:
        """Whether anything is named so, whether or not we can read it."""
        return any(_tag(entry) == tag for entry in self._entries)

    def digests(self) -> set[str]:
        """Return what the index names, tagged or not."""
        return {d.digest for _, d in self._known()}

    def tagged(self, descriptor: Descriptor, tags: Collection[str]) -> "LayoutIndex":
        """Return the index with the tags moved to the descriptor."""
        moved: list[Entry] = [_entry(descriptor, tag) for tag in tags]
        others = [entry for entry in self._entries if _tag(entry) not in tags]
        return self._with(sorted([*others, *moved], key=_order))

    def beside(self, descriptor: Descriptor) -> "LayoutIndex":
        """Return the index with an entry that has no tag, unless it is named already."""
        if descriptor.digest in self.digests():
            return self
        return self._with(sorted([*self._entries, _entry(descriptor, "")], key=_order))

    def without_tag(self, tag: str) -> "LayoutIndex":
        """Return the index without the tag."""
        return self._with([entry for entry in self._entries if _tag(entry) != tag])

    def without(self, digests: Collection[str]) -> "LayoutIndex":
        """Return the index without the untagged entries of these digests."""
        return self._with([e for e in self._entries if _tag(e) or e.get("digest") not in digests])

    def _with(self, entries: list[Entry]) -> "LayoutIndex":
        return LayoutIndex(entries, self._rest)

    def _known(self) -> Iterator[tuple[Entry, Descriptor]]:
        """Yield the entries that we can read; those of other digests stay unread."""
        for entry in self._entries:
            try:
                yield entry, Descriptor.from_json(entry)
            except ValueError:
                continue


def named_blobs(body: Any) -> tuple[set[str], set[str]]:  # noqa: ANN401  (whatever JSON holds)
    """Return the digests that a manifest or an index names: of manifests, and of config and layers."""
    if not isinstance(body, Mapping):
        return set(), set()
    return _digests(body.get("manifests")), _digests(body.get("layers")) | _digests([body.get("config")])


def _digests(listed: Any) -> set[str]:  # noqa: ANN401
    if not isinstance(listed, list):
        return set()
    return {d for each in listed if isinstance(each, Mapping) and isinstance(d := each.get("digest"), str)}


def _tag(entry: Entry) -> str:
    notes = entry.get("annotations")
    name = notes.get(REF_NAME) if isinstance(notes, Mapping) else None
    return name if isinstance(name, str) else ""


def _entry(descriptor: Descriptor, tag: str) -> Entry:
    notes = {REF_NAME: tag} if tag else {}
    return Descriptor(descriptor.media_type, descriptor.digest, descriptor.size, notes).to_json()


def _order(entry: Entry) -> tuple[str, str]:
    return _tag(entry) or str(entry.get("digest")), str(entry.get("digest"))
