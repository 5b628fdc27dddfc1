"""Real registries for tests: Debian's docker-registry on loopback, open or with a password."""

import hashlib
import io
import json
import shutil
import socket
import subprocess
import tarfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

USER, PASSWORD = "tester", "s3cret-pass"
# htpasswd -nbBC 5 tester s3cret-pass
HTPASSWD = "tester:$2y$05$gBRnAQoL1f0ZGlwEIzLThuGmGTGwCntYzkrTcx1VyA.RznDpL0HdW\n"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
TAR, TAR_GZIP = "application/vnd.oci.image.layer.v1.tar", "application/vnd.oci.image.layer.v1.tar+gzip"
CONFIG = "application/vnd.oci.image.config.v1+json"


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def registry(folder: Path, *, password: bool = False) -> Iterator[str]:
    """Run docker-registry and yield its address; skip the test where it is not installed."""
    program = shutil.which("docker-registry") or "/usr/bin/docker-registry"
    if not Path(program).exists():
        pytest.skip("docker-registry is not installed: apt-get install docker-registry")
    port = free_port()
    lines = [
        f"storage: {{filesystem: {{rootdirectory: {folder / 'registry'}}}}}",
        f"http: {{addr: '127.0.0.1:{port}'}}",
    ]
    if password:
        (folder / "htpasswd").write_text(HTPASSWD)
        lines.append(f"auth: {{htpasswd: {{realm: test, path: {folder / 'htpasswd'}}}}}")
    (folder / "registry.yml").write_text("\n".join(["version: 0.1", "log: {level: error}", *lines]))
    with (folder / "registry.log").open("wb") as log:
        process = subprocess.Popen([program, "serve", str(folder / "registry.yml")], stdout=log, stderr=log)
    try:
        _wait(f"http://127.0.0.1:{port}/v2/")
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


def _wait(url: str) -> None:
    for _ in range(100):
        try:
            httpx.get(url)
            return
        except httpx.HTTPError:
            time.sleep(0.05)
    raise TimeoutError(url)


def tar(entries: Mapping[str, bytes | tarfile.TarInfo]) -> bytes:
    """Return a tar of files by name, or of entries as they are."""
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as archive:
        for name, content in entries.items():
            if isinstance(content, tarfile.TarInfo):
                archive.addfile(content)
                continue
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return sink.getvalue()


def digest(data: bytes) -> str:
    """Return the digest as OCI writes it."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


class Pusher:
    """Puts blobs and manifests into one repository, exactly as they are given."""

    def __init__(self, address: str, repository: str, auth: tuple[str, str] | None = None) -> None:
        self.image = f"{address}/{repository}"
        self._base = f"http://{address}/v2/{repository}"
        self._auth = auth

    def blob(self, data: bytes) -> str:
        """Store a blob and return its digest."""
        location = httpx.post(f"{self._base}/blobs/uploads/", auth=self._auth).headers["Location"]
        answer = httpx.put(
            location, auth=self._auth, params={**httpx.URL(location).params, "digest": digest(data)}, content=data
        )
        assert answer.status_code == 201, answer.text
        return digest(data)

    def manifest(self, body: Mapping[str, Any], reference: str) -> str:
        """Store a manifest under a tag or its digest."""
        data = json.dumps(body).encode()
        name = digest(data) if reference == "digest" else reference
        answer = httpx.put(
            f"{self._base}/manifests/{name}", auth=self._auth, content=data, headers={"Content-Type": body["mediaType"]}
        )
        assert answer.status_code == 201, answer.text
        return digest(data)

    def image_of(self, layers: Sequence[tuple[str, bytes, Mapping[str, str]]], tag: str) -> str:
        """Store an image of (media type, bytes, annotations) layers under ``tag``; return its digest."""
        config = b"{}"
        body = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": {"mediaType": CONFIG, "digest": self.blob(config), "size": len(config)},
            "layers": [
                {"mediaType": kind, "digest": self.blob(data), "size": len(data), "annotations": dict(notes)}
                for kind, data, notes in layers
            ],
        }
        return self.manifest(body, tag)
