"""Wait until a new API server answers, and write the cluster's kubeconfig anew for it: same users, another server."""

import base64
import ssl
import sys
import time
import urllib.request
from pathlib import Path

import yaml

WAIT_SECONDS = 60.0


def wait(server: str, certificate: Path) -> None:
    """Wait until the server is ready.

    Raises:
        TimeoutError: it is not.
    """
    deadline = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < deadline:
        try:
            context = ssl.create_default_context(cafile=str(certificate))
            context.check_hostname = False  # its certificate is for localhost
            with urllib.request.urlopen(f"{server}/readyz", context=context, timeout=5) as answer:
                if answer.read() == b"ok":
                    return
        except OSError:
            time.sleep(0.2)
    raise TimeoutError(f"{server} is not ready")


def main(cluster: Path, run: Path, server: str) -> None:
    """``run`` is the server's folder: its certificate, with the CA that signed it, lies there."""
    certificate = run / "apiserver.crt"
    wait(server, certificate)
    body = yaml.safe_load(cluster.read_text())
    for entry in body["clusters"]:
        entry["cluster"] = {
            "server": server,
            "certificate-authority-data": base64.b64encode(certificate.read_bytes()).decode(),
            "tls-server-name": "localhost",
        }
    path = run / "kubeconfig"
    path.touch(mode=0o600)
    path.write_text(yaml.safe_dump(body))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
