"""A store in a registry: one repository whose tags name artifacts.  What the steps of a cluster share."""

import hashlib
import json
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import BinaryIO

from presets.errors import DataError
from steps.docker_config import DockerConfig
from steps.oci_layout import safe_title
from steps.registry import INDEX_TYPES, MANIFEST_TYPES, blob_to, manifest_bytes
from steps.registry_client import Repository
from steps.registry_referrers import SUBJECT_HEADER, enter, referrers
from steps.registry_upload import has_blob, mount, upload
from steps.store import MANIFEST_TYPE, TITLE, Descriptor, Manifest, Store

TAGS_PER_PAGE = 500


class RegistryStore:
    """A :class:`steps.store.Store` in one repository; several machines may use it at once."""

    def __init__(self, repository: str, config: DockerConfig, *, verify: bool | str = True) -> None:
        self._at = Repository(repository, config, verify=verify)

    @property
    def shown(self) -> str:
        """The repository, for people."""
        return self._at.shown

    def find(self, reference: str) -> Manifest | None:
        """Return the artifact of a tag or a digest; None when it is not there.

        Raises:
            DataError: an index of images is there; a registry that is asked for manifests alone does not tell of it.
        """
        try:
            digest, data = manifest_bytes(self._at, reference, (*MANIFEST_TYPES, *INDEX_TYPES))
        except DataError as error:
            if error.reason == "ImageNotFound":
                return None
            raise
        return Manifest.from_bytes(digest, data)

    def raw(self, digest: str) -> bytes | None:
        """Return the bytes of a manifest or an index, None where it is not there."""
        try:
            return manifest_bytes(self._at, digest, (*MANIFEST_TYPES, *INDEX_TYPES))[1]
        except DataError as error:
            if error.reason == "ImageNotFound":
                return None
            raise

    def forget_damaged(self, blob: Descriptor) -> None:
        """Do nothing: a registry keeps no blob whose bytes are others."""

    def add_file(self, source: Path, media_type: str, annotations: Mapping[str, str]) -> Descriptor:
        """Stream the file in, hashed on the way."""
        found = upload(self._at, source)
        return Descriptor(media_type, found.digest, found.size, annotations)

    def add_bytes(self, data: bytes, media_type: str) -> Descriptor:
        """Add a small blob; one that is there already is not sent again."""
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        with tempfile.NamedTemporaryFile() as file:
            file.write(data)
            file.flush()
            upload(self._at, Path(file.name), digest)
        return Descriptor(media_type, digest, len(data))

    def add_blob(self, blob: Descriptor, source: Store) -> None:
        """Mount the blob where the source is a repository of the same registry, else stream it in."""
        beside = source.repository_beside(self._at) if isinstance(source, RegistryStore) else None
        if has_blob(self._at, blob.digest) or (beside and mount(self._at, blob.digest, beside)):
            return
        with source.open_blob(blob.digest) as reader:
            upload(self._at, Path(reader.name), blob.digest)

    def repository_beside(self, other: Repository) -> str | None:
        """Return this repository's name where ``other`` is of the same registry."""
        return self._at.name if self._at.root == other.root else None

    def add_manifest(self, data: bytes, tags: Iterable[str]) -> Manifest:
        """Add the manifest by its digest, read it back, then move the tags to it."""
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        manifest = Manifest.from_bytes(digest, data)
        for name in (digest, *tags):
            url, headers = f"{self._at.base}/manifests/{name}", {"Content-Type": MANIFEST_TYPE}
            with self._at.asked(url, headers, method="PUT", data=data, good=(201,)) as answer:
                told = answer.headers.get("Docker-Content-Digest", digest)
                listed = SUBJECT_HEADER in answer.headers
            if told != digest:
                raise DataError(
                    "DigestMismatch",
                    f"{self._at.shown} took a manifest for {told} that is {digest}.",
                    fix="Look for a proxy that rewrites what is pushed.",
                )
            if name == digest:
                manifest_bytes(self._at, digest, MANIFEST_TYPES)
                if manifest.subject and not listed:
                    enter(self._at, manifest)
        return manifest

    def referrers(self, digest: str) -> list[Manifest]:
        """Return what the registry lists, or the list under the fallback tag."""
        return referrers(self._at, digest)

    def open_blob(self, digest: str) -> AbstractContextManager[BinaryIO]:
        """Fetch the blob, or the manifest, into a file that is gone when it is closed."""
        return self._opened(digest)

    @contextmanager
    def _opened(self, digest: str) -> Iterator[BinaryIO]:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "blob"
            if has_blob(self._at, digest):
                blob_to(self._at, digest, None, path)
            else:
                path.write_bytes(manifest_bytes(self._at, digest, MANIFEST_TYPES)[1])
            with path.open("rb") as reader:
                yield reader

    def discard(self, manifest: Manifest) -> None:
        """Remove the artifact's manifest, unless a tag names it; the registry's own collection removes its blobs.

        Deletion is an option of registries: where it is switched off, the artifact stays.
        """
        if manifest.digest not in self.tags().values():
            self.remove(manifest.digest)

    def remove(self, digest: str) -> bool:
        """Remove a manifest and every tag of it; False where the registry lets none be deleted."""
        url, passed = f"{self._at.base}/manifests/{digest}", (200, 202, 404)
        with self._at.asked(url, method="DELETE", good=(*passed, 400, 401, 403, 405)) as answer:
            return answer.status_code in passed

    def tags(self) -> dict[str, str]:
        """Return tag -> manifest digest."""
        names: list[str] = []
        url = f"{self._at.base}/tags/list?n={TAGS_PER_PAGE}"
        while url:
            found, url = self._page(url)
            names += found
        return {name: digest for name in names if (digest := self._digest_of(name))}

    def _page(self, url: str) -> tuple[list[str], str]:
        """Return tags, and where the next are, empty where there are no more.

        Raises:
            DataError: what comes is no list of tags.
        """
        data, following = self._at.page(url, "application/json", strict=False)
        try:
            tags = json.loads(data)["tags"] if data is not None else []
            if not isinstance(tags or [], list) or not all(isinstance(tag, str) for tag in tags or ()):
                raise ValueError("no list")
        except (ValueError, LookupError, TypeError, RecursionError) as error:
            raise DataError(
                "RegistryRefused", f"{self._at.shown} does not list its tags.", fix="Look for a proxy before it."
            ) from error
        return tags or [], following

    def _digest_of(self, tag: str) -> str:
        headers = {"Accept": ", ".join((*MANIFEST_TYPES, *INDEX_TYPES))}
        with self._at.asked(f"{self._at.base}/manifests/{tag}", headers, method="HEAD", good=(200, 404)) as answer:
            return answer.headers.get("Docker-Content-Digest", "")

    def check_out(self, manifest: Manifest, folder: Path) -> None:
        """Fetch the blobs into ``folder`` by title, each verified, whole or not at all."""
        folder.mkdir(parents=True, exist_ok=True)
        for layer in manifest.layers:
            target = folder / safe_title(layer.annotations.get(TITLE, ""))
            target.parent.mkdir(parents=True, exist_ok=True)
            blob_to(self._at, layer.digest, layer.size, target)
