"""The adapter as an OCI image: one layer, ``data/`` inside, the same bytes for the same adapter.

The one layout that KAITO's pullers, Kubernetes image volumes, ``oras pull`` and skopeo all read:

* one ``tar+gzip`` layer whose entries are ``data/`` and ``data/…``, sorted, owner 0, time 0, stored (level 0);
* the tar ends with exactly 1024 zero bytes: oras-go hashes only what its tar reader consumes, and Python's
  padding to 10 KiB records would make ``oras pull`` fail with "content digest mismatch";
* a real image config with ``rootfs.diff_ids``: containerd does not mount images with the empty config.
"""

import datetime as dt
import gzip
import hashlib
import io
import os
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from presets.recipe import DataRecipe, ModelRecipe
from steps.store import MANIFEST_TYPE, TITLE, Manifest, Store, canonical

LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar+gzip"
CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
FOLDER = "data"
EPOCH = "1970-01-01T00:00:00Z"
OWNER = "kaiflow.workspace"


@dataclass(frozen=True, slots=True)
class Layer:
    """A written layer: its file, and the digest of the tar inside (``diff_id``)."""

    path: Path
    diff_id: str


def build_layer(files: Mapping[str, Path], target: Path) -> Layer:
    """Write the layer of ``files`` (name below ``data/`` -> path) to ``target``, in one pass."""
    with target.open("wb") as raw, gzip.GzipFile("", "wb", compresslevel=0, fileobj=raw, mtime=0) as compressed:
        sink = _HashingSink(compressed)
        tar = tarfile.TarFile(fileobj=sink, mode="w", format=tarfile.PAX_FORMAT)  # not closed: that pads
        for entry, path in _entries(files):
            if path is None:
                tar.addfile(entry)
            else:
                with path.open("rb") as reader:
                    tar.addfile(entry, reader)
        sink.write(b"\0" * 1024)
    return Layer(target, f"sha256:{sink.hasher.hexdigest()}")


def publish_image(
    store: Store, layer: Layer, annotations: Mapping[str, str], created: str, tags: list[str]
) -> Manifest:
    """Store config, layer and manifest of the image, and move ``tags`` to it last."""
    config = {
        "architecture": "amd64",
        "os": "linux",
        "created": created,
        "config": {"WorkingDir": f"/{FOLDER}"},
        "rootfs": {"type": "layers", "diff_ids": [layer.diff_id]},
        "history": [{"created": created, "created_by": "kaiflow push"}],
    }
    layer_notes = {
        TITLE: FOLDER,
        "io.deis.oras.content.unpack": "true",
        "io.deis.oras.content.digest": layer.diff_id,
    }
    blob = store.add_file(layer.path, LAYER_TYPE, layer_notes)
    body = {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "config": store.add_bytes(canonical(config), CONFIG_TYPE).to_json(),
        "layers": [blob.to_json()],
        "annotations": dict(sorted({"org.opencontainers.image.created": created, **annotations}.items())),
    }
    return store.add_manifest(canonical(body), tags)


def owner_of(namespace: str, workspace: str) -> str:
    """Return whose an image is: the Workspace, in whatever revision."""
    return f"{namespace}/{workspace}"


def image_annotations(
    workspace: str, owner: str, model: ModelRecipe, data: DataRecipe, adapter: Manifest
) -> dict[str, str]:
    """Return what the image says of itself: model, licence, rows, losses, its run, and whose it is."""
    return {
        "sh.kaito.model.name": model.preset,
        "org.opencontainers.image.title": f"{workspace} LoRA adapter",
        "org.opencontainers.image.licenses": model.license,
        "kaiflow.model": model.hugging_face_id,
        "kaiflow.model.revision": model.revision,
        "kaiflow.data.held-out-fraction": str(data.held_out_fraction),
        **adapter.annotations,
        "kaiflow.run": adapter.digest,
        OWNER: owner,
    }


def created_at() -> str:
    """Return the time to stamp: SOURCE_DATE_EPOCH where it is set, else the epoch, so that digests repeat."""
    seconds = os.environ.get("SOURCE_DATE_EPOCH", "")
    if not seconds.isdecimal():
        return EPOCH
    return dt.datetime.fromtimestamp(int(seconds), dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _entries(files: Mapping[str, Path]) -> Iterator[tuple[tarfile.TarInfo, Path | None]]:
    folders = {FOLDER} | {f"{FOLDER}/{parent}" for name in files for parent in Path(name).parents if str(parent) != "."}
    named: dict[str, Path | None] = {f"{FOLDER}/{name}": path for name, path in files.items()}
    named |= dict.fromkeys(folders)
    for name, path in sorted(named.items()):
        entry = tarfile.TarInfo(name)
        if path is None:
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
        else:
            entry.size, entry.mode = path.stat().st_size, 0o644
        yield entry, path


class _HashingSink(io.RawIOBase):
    """The file that tarfile writes to: passes bytes on and hashes them."""

    def __init__(self, target: gzip.GzipFile) -> None:
        super().__init__()
        self._target = target
        self._size = 0
        self.hasher = hashlib.sha256()

    def tell(self) -> int:
        """Return the number of bytes written."""
        return self._size

    def write(self, data: bytes) -> int:  # type: ignore[override]  # tarfile writes bytes only
        """Write and hash."""
        self.hasher.update(data)
        self._target.write(data)
        self._size += len(data)
        return len(data)
