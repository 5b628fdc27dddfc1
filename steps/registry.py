"""Images of a registry, read: manifests and blobs by digest, every byte verified."""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from presets.errors import DataError, TryAgainError
from steps.backoff import ATTEMPTS, pause
from steps.docker_config import DockerConfig
from steps.registry_client import FAULTS, Repository, received
from steps.store import DIGEST

INDEX_TYPES = ("application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json")
MANIFEST_TYPES = ("application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json")
NESTED_INDEXES = 3


class Registry:
    """Artifacts of one repository."""

    def __init__(self, image: str, config: DockerConfig, *, verify: bool | str = True) -> None:
        self._at = Repository(image, config, verify=verify)
        self.repository, self.reference, self.shown = self._at.name, self._at.reference, self._at.shown

    def __enter__(self) -> "Registry":
        return self

    def __exit__(self, *_: object) -> None:
        self._at.close()

    def manifest(self, reference: str | None = None) -> tuple[str, dict[str, Any]]:
        """Return (digest, manifest) of the image; of an index that for linux/amd64, or its only one.

        Raises:
            DataError: there is no such image, or what comes is not what its digest says.
        """
        wanted = reference or self.reference
        for _ in range(NESTED_INDEXES + 1):
            digest, data = manifest_bytes(self._at, wanted, (*MANIFEST_TYPES, *INDEX_TYPES))
            try:
                body = json.loads(data)
            except (ValueError, RecursionError) as error:
                raise _corrupt(self.shown, wanted) from error
            if isinstance(body, dict) and isinstance(body.get("layers"), list):
                return digest, body
            if not isinstance(body, dict) or not isinstance(body.get("manifests"), list):
                break
            wanted = _for_this_platform(body["manifests"], self.shown)
        raise DataError("ImageInvalid", f"{self.shown} has a manifest without layers.", fix="Push it again with oras.")

    def blob_to(self, digest: str, size_bytes: int, path: Path) -> None:
        """Write a blob to ``path``: see :func:`blob_to`."""
        blob_to(self._at, digest, size_bytes, path)


def manifest_bytes(at: Repository, reference: str, types: Sequence[str]) -> tuple[str, bytes]:
    """Return (digest, bytes) of what a tag or a digest names.

    Raises:
        DataError: there is nothing, or what comes is not what the digest says.
    """
    data = at.small(f"{at.base}/manifests/{reference}", ", ".join(types))
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    if ":" in reference and reference != digest:
        raise _corrupt(at.shown, reference)
    return digest, data


def blob_to(at: Repository, digest: str, size_bytes: int | None, path: Path) -> None:
    """Write a blob to ``path``, verified, whole or not at all.

    Goes on where a cut connection, or a process that was killed, has stopped.

    Raises:
        DataError: the bytes are not those of the digest, or more than ``size_bytes``.
        TryAgainError: the registry does not send them, or ever more slowly.
    """
    part = path.with_name(f".{path.name}.{digest[7:19]}.part")
    resumed = part.exists()
    found = _fetched(at, digest, size_bytes, part)
    if found != digest and resumed:  # what was there before may be what is wrong
        part.unlink()
        found = _fetched(at, digest, size_bytes, part)
    if found != digest:
        part.unlink()
        raise _corrupt(at.shown, digest)
    part.replace(path)


def _fetched(at: Repository, digest: str, size_bytes: int | None, part: Path) -> str:
    """Append to ``part`` what is missing of the blob; return the digest of the whole."""
    with part.open("a+b") as writer:
        writer.seek(0)
        hasher = hashlib.file_digest(writer, "sha256")
        have = writer.tell()
        whole = size_bytes is not None and have >= size_bytes
        cuts = 0
        while not whole and cuts < ATTEMPTS:
            before = have
            try:
                with at.asked(f"{at.base}/blobs/{digest}", {"Range": f"bytes={have}-"} if have else {}) as answer:
                    if have and answer.status_code == 200:
                        writer.truncate(0)
                        hasher, have = hashlib.sha256(), 0
                    for chunk in received(answer):
                        writer.write(chunk)
                        hasher.update(chunk)
                        have += len(chunk)
                        if size_bytes is not None and have > size_bytes:
                            return ""
                whole = size_bytes is None or have == size_bytes
            except FAULTS:
                cuts = 0 if have > before else cuts + 1  # as long as more comes, more is asked for
                pause(cuts)
            else:
                cuts += 1
        writer.flush()
        os.fsync(writer.fileno())
    if not whole:
        raise TryAgainError(
            "RegistryUnreachable",
            f"{at.shown} sent {have} bytes of a blob{f' of {size_bytes}' if size_bytes is not None else ''}.",
            fix="The step tries again.",
        )
    return f"sha256:{hasher.hexdigest()}"


def _platform(entry: Mapping[str, Any]) -> Mapping[str, Any]:
    told = entry.get("platform")
    return told if isinstance(told, Mapping) else {}


def _for_this_platform(manifests: list[Any], shown: str) -> str:
    images = [m for m in manifests if isinstance(m, dict) and DIGEST.fullmatch(str(m.get("digest")))]
    images = [m for m in images if _platform(m).get("os") != "unknown"]  # buildkit's attestations
    wanted = [m for m in images if _platform(m).get("architecture") == "amd64" and _platform(m).get("os") == "linux"]
    if not wanted and len(images) != 1:
        raise DataError("ImageInvalid", f"{shown} has no image for linux/amd64.", fix="Name the digest of one image.")
    return str((wanted or images)[0]["digest"])


def _corrupt(shown: str, digest: str) -> DataError:
    return DataError(
        "DigestMismatch", f"{shown} sent other bytes than {digest} stands for.", fix="Push the image again."
    )
