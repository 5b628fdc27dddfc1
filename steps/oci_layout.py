"""A store in a folder: an OCI image layout (image-spec 1.1), which skopeo, oras and buildah read too.

Blobs are written aside, synced, and renamed to their digest; the index is replaced last, under a lock. A
kill at any moment therefore leaves either nothing or something complete.
"""

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import BinaryIO

from presets.errors import DataError
from steps.layout_index import INDEX_FILE, LayoutIndex, named_blobs
from steps.layout_parts import drop_left, new_part, written_at
from steps.store import DIGEST, MANIFEST_TYPE, TITLE, Descriptor, Manifest, Store, digest_of_file

CHUNK_BYTES = 1 << 20


class LayoutStore:
    """A :class:`steps.store.Store` in one folder; several processes may use it at once."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._blobs = root / "blobs" / "sha256"
        self._ingest = root / "ingest"
        marker = root / "oci-layout"
        if marker.exists() and not os.access(root, os.W_OK):
            return  # a volume that is mounted to be read
        self._blobs.mkdir(parents=True, exist_ok=True)
        self._ingest.mkdir(exist_ok=True)
        drop_left(self._ingest)
        if not marker.exists():
            self._write(marker, b'{"imageLayoutVersion":"1.0.0"}')

    def find(self, reference: str) -> Manifest | None:
        """Return the artifact of a tag or a digest; None when it is not there or does not match its digest.

        Raises:
            DataError: it is no image, or is named in a way that we cannot read.
        """
        digest = reference if reference.startswith("sha256:") else self._tagged(reference)
        data = self.raw(digest) if digest else None
        if data is None:
            return None
        manifest = Manifest.from_bytes(str(digest), data)
        whole = all(map(self._has, [*manifest.layers, *([manifest.config] if manifest.config else [])]))
        return manifest if whole else None

    def raw(self, digest: str) -> bytes | None:
        """Return the bytes of a manifest or an index, None where they are not there or are others."""
        try:
            data = self._path(digest).read_bytes()
        except OSError:
            return None
        return data if _digest_of(data) == digest else None

    def forget_damaged(self, blob: Descriptor) -> None:
        """Remove the blob where its bytes are others than its digest stands for."""
        if self._path(blob.digest).exists() and not self._is_whole(blob):
            self._path(blob.digest).unlink(missing_ok=True)

    def add_file(self, source: Path, media_type: str, annotations: Mapping[str, str]) -> Descriptor:
        """Copy the file in, hashing as it is read."""
        with source.open("rb") as reader:
            part, digest, size = self._taken_in(reader)
        return self._adopt(part, Descriptor(media_type, digest, size, annotations))

    def add_bytes(self, data: bytes, media_type: str) -> Descriptor:
        """Write a small blob."""
        descriptor = Descriptor(media_type, _digest_of(data), len(data))
        if not self._is_whole(descriptor):
            self._write(self._path(descriptor.digest), data)
        return descriptor

    def add_blob(self, blob: Descriptor, source: Store) -> None:
        """Copy the blob in, hashing as it is read.

        Raises:
            DataError: the source's bytes are not those of the digest.
        """
        if self._is_whole(blob):
            return
        with source.open_blob(blob.digest) as reader:
            part, digest, _ = self._taken_in(reader)
        if digest != blob.digest:
            part.unlink()
            raise DataError(
                "ArtifactCorrupt", f"A blob is not what {blob.digest} stands for.", fix="Run the file again."
            )
        self._adopt(part, blob)

    def add_manifest(self, data: bytes, tags: Iterable[str]) -> Manifest:
        """Write the manifest, then move the tags to it."""
        descriptor = self.add_bytes(data, MANIFEST_TYPE)
        manifest = Manifest.from_bytes(descriptor.digest, data)
        with self._locked():
            index = LayoutIndex.read(self.root).tagged(descriptor, list(tags))
            self._write_index(index.beside(descriptor) if manifest.subject else index)
        return manifest

    def referrers(self, digest: str) -> list[Manifest]:
        """Return what the index names, tagged or not, whose subject is ``digest``."""
        found = map(self._image, sorted(LayoutIndex.read(self.root).digests()))
        return [m for m in found if m is not None and m.subject == digest]

    def tags(self) -> dict[str, str]:
        """Return tag -> manifest digest."""
        return LayoutIndex.read(self.root).tags()

    def open_blob(self, digest: str) -> AbstractContextManager[BinaryIO]:
        """Open the blob's file."""
        return self._path(digest).open("rb")

    def check_out(self, manifest: Manifest, folder: Path) -> None:
        """Link the blobs into ``folder`` by title (copy where links are not possible), each verified."""
        folder.mkdir(parents=True, exist_ok=True)
        for layer in manifest.layers:
            target = folder / safe_title(layer.annotations.get(TITLE, ""))
            target.parent.mkdir(parents=True, exist_ok=True)
            self._verify(layer)
            target.unlink(missing_ok=True)
            try:
                os.link(self._path(layer.digest), target)
            except OSError:
                shutil.copyfile(self._path(layer.digest), target)

    def discard(self, manifest: Manifest) -> None:
        """Remove the artifact's manifest and the blobs that no tagged artifact holds; a tagged one stays."""
        self._forget(manifest.digest)

    def _forget(self, digest: str) -> None:
        with self._locked():
            index = LayoutIndex.read(self.root)
            tagged = set(index.tags().values())
            if digest in tagged:
                return
            about = {m.digest for m in self.referrers(digest)}
            gone = {digest, *(about - tagged)}  # what tells of it, untagged
            if gone & index.digests():
                index = index.without(gone)
                self._write_index(index)
            for blob in self._reached_from(gone) - self._reached_from(index.digests()):
                self._path(blob).unlink(missing_ok=True)

    def written_at(self, digest: str) -> float:
        """Return when the artifact's manifest was written, in seconds since the epoch."""
        return written_at(self._path(digest))

    def size_alone(self, digest: str, tag: str) -> int:
        """Return the bytes that only the artifact of ``tag`` holds: what removing it sets free."""
        others = LayoutIndex.read(self.root).without_tag(tag).digests()
        alone = self._reached_from({digest}) - self._reached_from(others)
        return sum(self._path(blob).stat().st_size for blob in alone if self._path(blob).exists())

    def untag(self, tag: str) -> None:
        """Remove the tag, and the artifact where no other tag names it."""
        with self._locked():
            index = LayoutIndex.read(self.root)
            self._write_index(index.without_tag(tag))
        digest = index.tags().get(tag)
        if digest:
            self._forget(digest)

    def _image(self, digest: str) -> Manifest | None:
        """Return what :meth:`find` does, None for what is no image either."""
        try:
            return self.find(digest)
        except DataError:
            return None

    def _reached_from(self, digests: Iterable[str]) -> set[str]:
        """Return the digests of manifests and indexes, and of all blobs that they name, images of an index included."""
        reached: set[str] = set()
        waiting = list(digests)
        while waiting:
            digest = waiting.pop()
            if digest in reached or not DIGEST.fullmatch(digest):
                continue
            reached.add(digest)
            manifests, blobs = named_blobs(self._json(digest))
            waiting += manifests
            reached |= {blob for blob in blobs if DIGEST.fullmatch(blob)}
        return reached

    def _json(self, digest: str) -> object:
        """Return what a manifest or an index holds, None where it is none."""
        try:
            return json.loads(self._path(digest).read_bytes())
        except (OSError, ValueError, RecursionError):
            return None

    def _is_whole(self, blob: Descriptor) -> bool:
        """Whether the blob is there, to the byte."""
        try:
            return digest_of_file(self._path(blob.digest)) == blob.digest
        except OSError:
            return False

    def _verify(self, layer: Descriptor) -> None:
        if not self._is_whole(layer):
            self._path(layer.digest).unlink(missing_ok=True)  # so that the step that made it makes it again
            raise DataError(
                "ArtifactCorrupt",
                f"{layer.annotations.get(TITLE, 'A blob')} in the store does not match its digest {layer.digest}.",
                fix="Run the file again: the damaged blob has been removed and will be made anew.",
            )

    def _taken_in(self, reader: BinaryIO) -> tuple[Path, str, int]:
        """Copy what is read aside, hashing it; return the file, its digest and its size."""
        part = new_part(self._ingest)
        hasher, size = hashlib.sha256(), 0
        with part.open("wb") as writer:
            while chunk := reader.read(CHUNK_BYTES):
                hasher.update(chunk)
                size += len(chunk)
                writer.write(chunk)
            _sync(writer)
        return part, f"sha256:{hasher.hexdigest()}", size

    def _adopt(self, part: Path, descriptor: Descriptor) -> Descriptor:
        part.chmod(0o444)  # links to it are laid into work folders; nobody writes through them
        part.replace(self._path(descriptor.digest))  # what was there may be damaged
        return descriptor

    def _has(self, descriptor: Descriptor) -> bool:
        try:
            return self._path(descriptor.digest).stat().st_size == descriptor.size
        except OSError:
            return False

    def _path(self, digest: str) -> Path:
        algorithm, _, value = digest.partition(":")
        if algorithm != "sha256" or len(value) != 64 or not set(value) <= set("0123456789abcdef"):
            raise DataError("BadDigest", f"{digest!r} is not a sha256 digest.", fix="Remove the damaged store folder.")
        return self._blobs / value

    def _tagged(self, tag: str) -> str | None:
        index = LayoutIndex.read(self.root)
        digest = index.tags().get(tag)
        if digest is None and index.has_tag(tag):
            raise DataError(
                "ManifestInvalid", f"What {self.root} names {tag} has no sha256 digest.", fix="Choose another tag."
            )
        return digest

    def _write_index(self, index: LayoutIndex) -> None:
        self._write(self.root / INDEX_FILE, index.to_bytes())

    def _write(self, path: Path, data: bytes) -> None:
        part = new_part(self._ingest)
        with part.open("wb") as writer:
            writer.write(data)
            _sync(writer)
        part.replace(path)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with (self.root / ".lock").open("w") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield


def safe_title(title: str) -> Path:
    """Return ``title`` as a relative path that stays below its folder.

    Raises:
        DataError: it is empty, absolute, or climbs out.
    """
    path = Path(title)
    if not title or path.is_absolute() or ".." in path.parts or "\0" in title:
        raise DataError("UnsafePath", f"The artifact names a file {title!r}.", fix="Do not use this artifact.")
    return path


def _sync(writer: BinaryIO) -> None:
    writer.flush()
    os.fsync(writer.fileno())


def _digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"
