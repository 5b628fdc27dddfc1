"""Real registries for tests: Debian's docker-registry on loopback, open or with a password."""

import base64
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
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from tests.servers import serving

USER, PASSWORD = "tester", "s3cret-pass"
# htpasswd -nbBC 5 tester s3cret-pass
HTPASSWD = "tester:$2y$05$gBRnAQoL1f0ZGlwEIzLThuGmGTGwCntYzkrTcx1VyA.RznDpL0HdW\n"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
TAR, TAR_GZIP = "application/vnd.oci.image.layer.v1.tar", "application/vnd.oci.image.layer.v1.tar+gzip"
CONFIG = "application/vnd.oci.image.config.v1+json"


def safetensors(data: bytes) -> bytes:
    """Return a file of safetensors that holds ``data`` as one tensor."""
    tensor = {"dtype": "U8", "shape": [len(data)], "data_offsets": [0, len(data)]}
    header = json.dumps({"weight": tensor}).encode()
    return len(header).to_bytes(8, "little") + header + data


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def registry(folder: Path, *, password: bool = False, extra: Sequence[str] = (), tls: bool = False) -> Iterator[str]:
    """Run docker-registry and yield its address; skip the test where it is not installed.

    ``extra`` are lines of its config; with ``tls`` it has the certificate of :func:`certificate` in ``folder``.
    """
    program = shutil.which("docker-registry") or "/usr/bin/docker-registry"
    if not Path(program).exists():
        pytest.skip("docker-registry is not installed: apt-get install docker-registry")
    port = free_port()
    lines = [
        f"storage: {{filesystem: {{rootdirectory: {folder / 'registry'}}}, delete: {{enabled: true}}}}",
        f"http: {{addr: '127.0.0.1:{port}'"
        + (f", tls: {{certificate: {folder / 'cert.pem'}, key: {folder / 'key.pem'}}}" if tls else "")
        + "}",
        *extra,
    ]
    if password:
        (folder / "htpasswd").write_text(HTPASSWD)
        lines.append(f"auth: {{htpasswd: {{realm: test, path: {folder / 'htpasswd'}}}}}")
    (folder / "registry.yml").write_text("\n".join(["version: 0.1", "log: {level: error}", *lines]))
    with (folder / "registry.log").open("wb") as log:
        process = subprocess.Popen([program, "serve", str(folder / "registry.yml")], stdout=log, stderr=log)
    try:
        _wait(f"http{'s' if tls else ''}://localhost:{port}/v2/")
        yield f"{'localhost' if tls else '127.0.0.1'}:{port}"
    finally:
        process.terminate()
        process.wait()


def _wait(url: str) -> None:
    for _ in range(100):
        try:
            httpx.get(url, verify=False)  # noqa: S501  (only whether it listens)
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


def certificate(folder: Path) -> Path:
    """Write a self-signed certificate for localhost and its key; return the certificate."""
    command = [
        "openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost",
        "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", str(folder / "key.pem"),
        "-out", str(folder / "cert.pem"),
    ]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True)
    return folder / "cert.pem"


class TokenService:
    """A token service as registries send their clients to: tokens for one repository and one kind of access."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.asked: list[str] = []  # scopes, in order
        self.seconds = 300
        self.stumbles = 0  # how often it cannot answer yet
        self.refused = ""  # a repository that nobody gets a token for

    @property
    def config(self) -> str:
        """Return the registry's config line."""
        told = f"realm: 'https://localhost:{self.port}/token', service: test, issuer: test"
        return f"auth: {{token: {{{told}, rootcertbundle: {self.folder / 'cert.pem'}}}}}"

    def token(self, scope: str) -> str:
        """Return a signed token that grants ``scope``."""
        import secrets

        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import padding, rsa

        def coded(data: bytes) -> str:
            return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

        granted = [dict(zip(("type", "name", "actions"), each.split(":"), strict=True)) for each in scope.split(" ")]
        access = [{**each, "actions": each["actions"].split(",")} for each in granted]
        now = int(time.time())
        claims = {
            "iss": "test", "sub": USER, "aud": "test", "exp": now + self.seconds, "nbf": now - 5, "iat": now,
            "jti": secrets.token_hex(8), "access": access,
        }  # fmt: skip
        certificate_der = x509.load_pem_x509_certificate((self.folder / "cert.pem").read_bytes()).public_bytes(
            serialization.Encoding.DER
        )
        header = {"typ": "JWT", "alg": "RS256", "x5c": [base64.b64encode(certificate_der).decode()]}
        signed = f"{coded(json.dumps(header).encode())}.{coded(json.dumps(claims).encode())}"
        key = serialization.load_pem_private_key((self.folder / "key.pem").read_bytes(), None)
        assert isinstance(key, rsa.RSAPrivateKey)
        return f"{signed}.{coded(key.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256()))}"

    @contextmanager
    def running(self) -> Iterator["TokenService"]:
        """Serve on TLS."""
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                query = parse_qs(urlsplit(self.path).query)
                expected = "Basic " + base64_of(f"{USER}:{PASSWORD}")
                status, body = 200, {}
                if self.headers.get("Authorization") != expected:
                    status = 401
                elif service.stumbles:
                    service.stumbles -= 1
                    status = 503
                elif service.refused and any(service.refused in scope for scope in query["scope"]):
                    status = 403
                else:
                    scope = " ".join(query["scope"])
                    service.asked.append(scope)
                    body = {"token": service.token(scope), "expires_in": service.seconds}
                data = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                """Say nothing."""

        with serving(Handler, self.port, self.folder / "cert.pem", self.folder / "key.pem"):
            yield self


def base64_of(text: str) -> str:
    """Return the text in base64."""
    return base64.b64encode(text.encode()).decode()
