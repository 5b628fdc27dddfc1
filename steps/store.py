"""Artifacts between steps: named files under a digest, found by tag.  One interface, several places.

An artifact is an OCI manifest whose layers are files (``org.opencontainers.image.title``). Steps talk to
:class:`Store` alone; ``steps.oci_layout`` keeps a store in a folder.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from presets.errors import ConfigError, DataError

MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
EMPTY_CONFIG_TYPE = "application/vnd.oci.empty.v1+json"
TITLE = "org.opencontainers.image.title"
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
LAYOUT_PREFIX, REGISTRY_PREFIX = "layout:", "registry:"
UPLOADS = 3  # at a time


@dataclass(frozen=True, slots=True)
class Descriptor:
    """A blob: media type, digest (``sha256:…``), size in bytes, annotations."""

    media_type: str
    digest: str
    size: int
    annotations: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the descriptor as OCI writes it."""
        body: dict[str, Any] = {"mediaType": self.media_type, "digest": self.digest, "size": self.size}
        if self.annotations:
            body["annotations"] = dict(self.annotations)
        return body

    @classmethod
    def from_json(cls, body: Any) -> "Descriptor":  # noqa: ANN401  (whatever JSON holds)
        """Read a descriptor as OCI writes it.

        Raises:
            ValueError: it is not one.
        """
        if not isinstance(body, Mapping):
            raise ValueError("a descriptor is not an object")
        kind, digest, size = (body.get(name) for name in ("mediaType", "digest", "size"))
        if not isinstance(kind, str) or not isinstance(digest, str) or not DIGEST.fullmatch(digest):
            raise ValueError("a descriptor has no media type, or no sha256 digest")
        if not isinstance(size, int) or isinstance(size, bool) or size < 0:
            raise ValueError("a descriptor has no size")
        return cls(kind, digest, size, _annotations(body))


def _annotations(body: Mapping[str, Any]) -> Mapping[str, str]:
    notes = body.get("annotations") or {}
    if not isinstance(notes, Mapping) or not all(isinstance(value, str) for value in notes.values()):
        raise ValueError("annotations are not text")
    return notes


@dataclass(frozen=True, slots=True)
class Manifest:
    """An artifact: its own digest, what it is, its files and its annotations."""

    digest: str
    artifact_type: str
    layers: tuple[Descriptor, ...]
    annotations: Mapping[str, str]
    size: int
    subject: str = ""  # digest of the artifact that this one tells of, where it tells of one
    config: Descriptor | None = None

    @classmethod
    def from_bytes(cls, digest: str, data: bytes) -> "Manifest":
        """Read a manifest whose digest has been checked.

        Raises:
            DataError: it is not an image manifest.
        """
        try:
            body = json.loads(data)
            if not isinstance(body, dict) or not isinstance(body.get("layers"), list):
                raise ValueError("it has no layers")
            layers = tuple(Descriptor.from_json(layer) for layer in body["layers"])
            config = Descriptor.from_json(body["config"]) if body.get("config") is not None else None
            kind = body.get("artifactType") or (config.media_type if config else None)
            if not isinstance(kind, str):
                raise ValueError("its artifact type is not text")
            subject = Descriptor.from_json(body["subject"]).digest if body.get("subject") is not None else ""
            return cls(digest, kind, layers, _annotations(body), len(data), subject, config)
        except (ValueError, RecursionError) as error:
            raise DataError(
                "ManifestInvalid",
                f"{digest} is not the manifest of an image: {error}.",
                fix="Name an image, or remove what is there.",
            ) from error


class Store(Protocol):
    """A place for artifacts; every method is safe to repeat and safe to kill."""

    def find(self, reference: str) -> Manifest | None:
        """Return the artifact of a tag or of a digest, None when it is not there."""
        ...

    def raw(self, digest: str) -> bytes | None:
        """Return the bytes of a manifest or an index, whatever of what it names is there; None where it is not there.

        Raises:
            KaiflowError: the store does not answer.
        """
        ...

    def forget_damaged(self, blob: Descriptor) -> None:
        """Remove a blob whose bytes are others than its digest stands for, so that it is made anew."""
        ...

    def add_file(self, source: Path, media_type: str, annotations: Mapping[str, str]) -> Descriptor:
        """Add the file's bytes; a blob that is there already is not written again."""
        ...

    def add_bytes(self, data: bytes, media_type: str) -> Descriptor:
        """Add a small blob."""
        ...

    def add_blob(self, blob: Descriptor, source: "Store") -> None:
        """Take a blob over from another store, verified; one that is there already moves no bytes."""
        ...

    def add_manifest(self, data: bytes, tags: Iterable[str]) -> Manifest:
        """Add a manifest and move the tags to it; the last thing that is written."""
        ...

    def open_blob(self, digest: str) -> AbstractContextManager[BinaryIO]:
        """Open a blob for reading; its digest is not checked here."""
        ...

    def discard(self, manifest: Manifest) -> None:
        """Remove the artifact and what it alone holds, unless a tag names it."""
        ...

    def check_out(self, manifest: Manifest, folder: Path) -> None:
        """Lay the artifact's files into ``folder`` by their titles, each digest verified."""
        ...

    def referrers(self, digest: str) -> list[Manifest]:
        """Return the artifacts whose subject is ``digest``, in the order of their digests."""
        ...


def open_store(uri: str) -> Store:
    """Return the store that ``uri`` names: ``layout:/absolute/folder`` or ``registry:host/repository``.

    Raises:
        ConfigError: no store of that kind can be opened.
    """
    from steps.oci_layout import LayoutStore

    if uri.startswith(LAYOUT_PREFIX):
        return LayoutStore(Path(uri.removeprefix(LAYOUT_PREFIX)))
    if uri.startswith(REGISTRY_PREFIX):
        from steps.docker_config import step_credentials
        from steps.registry_store import RegistryStore

        return RegistryStore(uri.removeprefix(REGISTRY_PREFIX), step_credentials())
    raise ConfigError(
        "StoreUnknown", f"{uri!r} is no store.", fix="Write layout:/absolute/folder or registry:host/repository."
    )


def publish(
    store: Store,
    artifact_type: str,
    files: Mapping[str, Path],
    annotations: Mapping[str, str],
    tags: Iterable[str],
    subject: Manifest | None = None,
) -> Manifest:
    """Store ``files`` (title -> path) as one artifact; the same content gives the same digest.

    ``subject`` is the artifact of this store that the new one tells of.
    """

    def add(file: tuple[str, Path]) -> Descriptor:
        title, path = file
        return store.add_file(path, _media_type(title), {TITLE: title})

    with ThreadPoolExecutor(UPLOADS) as several:
        layers = list(several.map(add, sorted(files.items())))
    config = store.add_bytes(b"{}", EMPTY_CONFIG_TYPE)
    body = {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "artifactType": artifact_type,
        "config": config.to_json(),
        "layers": [layer.to_json() for layer in layers],
        "annotations": dict(sorted(annotations.items())),
        **({"subject": Descriptor(MANIFEST_TYPE, subject.digest, subject.size).to_json()} if subject else {}),
    }
    return store.add_manifest(canonical(body), tags)


def copy(artifact: Manifest, source: Store, target: Store, tags: Iterable[str]) -> Manifest:
    """Take an artifact over into another store, byte for byte, its tags last."""
    with source.open_blob(artifact.digest) as reader:
        data = reader.read()
    body = json.loads(data)
    blobs = [Descriptor.from_json(each) for each in (body["config"], *body["layers"])]
    with ThreadPoolExecutor(UPLOADS) as several:
        for _ in several.map(lambda blob: _take_over(blob, source, target), blobs):
            pass  # what went wrong with one is raised here
    return target.add_manifest(data, tags)


def _take_over(blob: Descriptor, source: Store, target: Store) -> None:
    try:
        target.add_blob(blob, source)
    except (DataError, FileNotFoundError) as error:
        source.forget_damaged(blob)  # if that is why: the next run makes it anew
        if isinstance(error, DataError):
            raise
        gone = f"{blob.digest} is gone from the store."
        raise DataError("ArtifactCorrupt", gone, fix="Run the file again.") from error


def require(store: Store, reference: str, what: str) -> Manifest:
    """Return the artifact of ``reference``.

    Raises:
        DataError: it is gone.
    """
    manifest = store.find(reference)
    if manifest is None:
        raise DataError(
            "ArtifactMissing",
            f"The {what} {reference} is not in the store.",
            fix="Run the file again: the step that makes it will make it anew.",
        )
    return manifest


def digest_of_file(path: Path) -> str:
    """Return a file's digest, as registries write it."""
    with path.open("rb") as reader:
        return f"sha256:{hashlib.file_digest(reader, 'sha256').hexdigest()}"


def canonical(body: Mapping[str, Any]) -> bytes:
    """Return the JSON bytes that a digest is taken over."""
    return json.dumps(body, separators=(",", ":"), sort_keys=True).encode()


def _media_type(title: str) -> str:
    if title.endswith(".intoto.json"):
        return "application/vnd.in-toto+json"
    suffix = Path(title).suffix
    return {
        ".json": "application/json",
        ".jsonl": "application/x-ndjson",
        ".parquet": "application/vnd.apache.parquet",
        ".md": "text/markdown",
        ".html": "text/html",
    }.get(suffix, "application/octet-stream")
