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
from typing import Any, BinaryIO

from presets.errors import DataError
from steps.store import MANIFEST_TYPE, TITLE, Descriptor, Manifest, Store

REF_NAME = "org.opencontainers.image.ref.name"
CHUNK_BYTES = 1 << 20


class LayoutStore:
    """A :class:`steps.store.Store` in one folder; several processes may use it at once."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._blobs = root / "blobs" / "sha256"
        self._ingest = root / "ingest"
        self._blobs.mkdir(parents=True, exist_ok=True)
        self._ingest.mkdir(exist_ok=True)
        self._drop_what_the_dead_left()
        marker = root / "oci-layout"
        if not marker.exists():
            self._write(marker, b'{"imageLayoutVersion":"1.0.0"}')

    def find(self, reference: str) -> Manifest | None:
        """Return the artifact of a tag or a digest; None when it is not there or does not match its digest."""
        digest = reference if reference.startswith("sha256:") else self._tagged(reference)
        if digest is None:
            return None
        try:
            data = self._path(digest).read_bytes()
        except OSError:
            return None
        if _digest_of(data) != digest:
            return None
        manifest = Manifest.from_bytes(digest, data)
        whole = all(self._has(layer) for layer in manifest.layers)
        return manifest if whole else None

    def add_file(self, source: Path, media_type: str, annotations: Mapping[str, str]) -> Descriptor:
        """Copy the file in, hashing as it is read."""
        with source.open("rb") as reader:
            part, digest, size = self._taken_in(reader)
        return self._adopt(part, Descriptor(media_type, digest, size, annotations))

    def add_bytes(self, data: bytes, media_type: str) -> Descriptor:
        """Write a small blob."""
        descriptor = Descriptor(media_type, _digest_of(data), len(data))
        if not self._has(descriptor):
            self._write(self._path(descriptor.digest), data)
        return descriptor

    def add_blob(self, blob: Descriptor, source: Store) -> None:
        """Copy the blob in, hashing as it is read.

        Raises:
            DataError: the source's bytes are not those of the digest.
        """
        if self._has(blob):
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
            entries = self._entries()
            for tag in tags:
                entries[tag] = descriptor
            if manifest.subject and descriptor.digest not in {d.digest for d in entries.values()}:
                entries[descriptor.digest] = descriptor
            self._write_index(entries)
        return manifest

    def referrers(self, digest: str) -> list[Manifest]:
        """Return what the index names, tagged or not, whose subject is ``digest``."""
        named = sorted({d.digest for d in self._entries().values() if d.media_type == MANIFEST_TYPE})
        return [m for m in map(self.find, named) if m is not None and m.subject == digest]

    def tags(self) -> dict[str, str]:
        """Return tag -> manifest digest."""
        return {tag: d.digest for tag, d in self._entries().items() if tag != d.digest}

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
        with self._locked():
            entries = self._entries()
            if manifest.digest in {d.digest for tag, d in entries.items() if tag != d.digest}:
                return
            about = (m.digest for m in self.referrers(manifest.digest))
            gone = {manifest.digest, *(digest for digest in about if digest in entries)}  # what tells of it, untagged
            if gone & set(entries):
                entries = {tag: d for tag, d in entries.items() if tag not in gone}
                self._write_index(entries)
            kept = {d.digest for d in entries.values()}
            kept |= {blob for digest in kept for blob in self._blobs_of(digest)}
            for digest in {*gone, *(blob for each in gone for blob in self._blobs_of(each))} - kept:
                self._path(digest).unlink(missing_ok=True)

    def written_at(self, digest: str) -> float:
        """Return when the artifact's manifest was written, in seconds since the epoch."""
        try:
            return self._path(digest).stat().st_mtime
        except OSError:
            return 0.0

    def size_alone(self, digest: str, tag: str) -> int:
        """Return the bytes that only the artifact of ``tag`` holds: what removing it sets free."""
        others = {d.digest for name, d in self._entries().items() if name != tag}
        kept = others | {blob for other in others for blob in self._blobs_of(other)}
        alone = ({digest} | self._blobs_of(digest)) - kept
        return sum(self._path(blob).stat().st_size for blob in alone if self._path(blob).exists())

    def untag(self, tag: str) -> None:
        """Remove the tag, and the artifact where no other tag names it."""
        with self._locked():
            entries = self._entries()
            descriptor = entries.pop(tag, None)
            self._write_index(entries)
        manifest = self.find(descriptor.digest) if descriptor else None
        if manifest is not None:
            self.discard(manifest)

    def _blobs_of(self, digest: str) -> set[str]:
        """Return the digests of an artifact's config and layers, none when it cannot be read."""
        try:
            body = json.loads(self._path(digest).read_bytes())
        except (OSError, ValueError):
            return set()
        return {body["config"]["digest"], *(layer["digest"] for layer in body["layers"])}

    def _verify(self, layer: Descriptor) -> None:
        path = self._path(layer.digest)
        with path.open("rb") as reader:
            actual = hashlib.file_digest(reader, "sha256").hexdigest()
        if f"sha256:{actual}" != layer.digest:
            path.unlink(missing_ok=True)  # so that the step that made it makes it again
            raise DataError(
                "ArtifactCorrupt",
                f"{layer.annotations.get(TITLE, 'A blob')} in the store does not match its digest {layer.digest}.",
                fix="Run the file again: the damaged blob has been removed and will be made anew.",
            )

    def _taken_in(self, reader: BinaryIO) -> tuple[Path, str, int]:
        """Copy what is read aside, hashing it; return the file, its digest and its size."""
        part = self._ingest / f"{os.getpid()}-{os.urandom(4).hex()}"
        hasher, size = hashlib.sha256(), 0
        with part.open("wb") as writer:
            while chunk := reader.read(CHUNK_BYTES):
                hasher.update(chunk)
                size += len(chunk)
                writer.write(chunk)
            _sync(writer)
        return part, f"sha256:{hasher.hexdigest()}", size

    def _adopt(self, part: Path, descriptor: Descriptor) -> Descriptor:
        if self._has(descriptor):
            part.unlink()
        else:
            part.chmod(0o444)  # links to it are laid into work folders; nobody writes through them
            part.replace(self._path(descriptor.digest))
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
        entry = self._entries().get(tag)
        return entry.digest if entry else None

    def _entries(self) -> dict[str, Descriptor]:
        """Return tag -> what it names; what has no tag, such as a statement on another artifact, by its digest."""
        try:
            index: dict[str, Any] = json.loads((self.root / "index.json").read_bytes())
        except FileNotFoundError:
            return {}
        found = [Descriptor.from_json(body) for body in index["manifests"]]
        return {d.annotations.get(REF_NAME, d.digest): d for d in found}

    def _write_index(self, entries: Mapping[str, Descriptor]) -> None:
        manifests = [
            Descriptor(d.media_type, d.digest, d.size, {} if tag == d.digest else {REF_NAME: tag}).to_json()
            for tag, d in sorted(entries.items())
        ]
        body = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": manifests}
        self._write(self.root / "index.json", json.dumps(body, indent=1).encode())

    def _write(self, path: Path, data: bytes) -> None:
        part = self._ingest / f"{os.getpid()}-{os.urandom(4).hex()}"
        with part.open("wb") as writer:
            writer.write(data)
            _sync(writer)
        part.replace(path)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with (self.root / ".lock").open("w") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield

    def _drop_what_the_dead_left(self) -> None:
        for part in self._ingest.iterdir():
            owner = part.name.partition("-")[0]
            if owner.isdecimal() and not Path(f"/proc/{owner}").exists():
                part.unlink(missing_ok=True)


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
