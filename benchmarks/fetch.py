"""How fast does a dataset arrive?  Against curl, aria2c, requests and huggingface_hub, from one nginx on loopback.

    python benchmarks/fetch.py [--mib 200] [--rounds 5]

Two servers: one that gives every connection 20 MiB/s, as far-away stores do, and one without a limit. All clients
are processes of their own, started in turn; ours also takes the sha256 of what it gets. Needs nginx, curl and
aria2c (Debian's nginx-light, curl, aria2), and requests and huggingface_hub beside kaiflow.
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from datetime import date
from pathlib import Path

import httpx
from measured import Measured, measured, median
from rich.console import Console
from rich.table import Table

HERE = Path(__file__).parent
PORTS = {"20 MiB/s a connection": 18081, "no limit": 18082}
OURS = "kaiflow"
CODE = {
    OURS: (
        "import sys; from pathlib import Path; from steps.connections import Guard;"
        "from steps.download import download;"
        "download(sys.argv[1], Path(sys.argv[2]), Guard(True), 1 << 40, lambda have, total: None)"
    ),
    "requests": (
        "import sys, requests, shutil; r = requests.get(sys.argv[1], stream=True); r.raise_for_status();"
        "f = open(sys.argv[2] + '/data.bin', 'wb'); [f.write(c) for c in r.iter_content(1 << 20)]; f.close()"
    ),
    "huggingface_hub": (
        "import sys; from huggingface_hub.file_download import http_get;"
        "f = open(sys.argv[2] + '/data.bin', 'wb'); http_get(sys.argv[1], f); f.close()"
    ),
}
CLIENTS = {
    OURS: [sys.executable, "-c", CODE[OURS]],
    "curl": ["curl", "-sS", "-o", "{folder}/data.bin"],
    "aria2c -x8": ["aria2c", "-q", "-x8", "-s8", "-k1M", "--file-allocation=none", "-d", "{folder}", "-o", "data.bin"],
    "requests": [sys.executable, "-c", CODE["requests"]],
    "huggingface_hub": [sys.executable, "-c", CODE["huggingface_hub"]],
}


def main() -> None:
    """Run all clients in turn against both servers, print a table and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mib", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    for program in ("nginx", "curl", "aria2c"):
        if not shutil.which(program) and not Path(f"/usr/sbin/{program}").exists():
            sys.exit(f"{program} is not installed: apt-get install nginx-light curl aria2")
    with tempfile.TemporaryDirectory(dir="/dev/shm") as name:
        folder = Path(name)
        (folder / "data.bin").write_bytes(os.urandom(options.mib << 20))
        server = _serve(folder)
        try:
            figures = {kind: _compare(folder, port, options.rounds) for kind, port in PORTS.items()}
        finally:
            server.terminate()
            server.wait()
    _tell(figures, options.mib, options.rounds)


def _serve(folder: Path) -> "subprocess.Popen[bytes]":
    folder.chmod(0o755)
    servers = "".join(
        f"server {{ listen 127.0.0.1:{port}; root {folder}; {'limit_rate 20m;' if 'MiB' in kind else ''} }}"
        for kind, port in PORTS.items()
    )
    http = f"http {{ access_log off; sendfile on; {servers} }}"
    config = f"user root; daemon off; pid {folder}/pid; error_log {folder}/log; events {{}} {http}"
    (folder / "nginx.conf").write_text(config)
    nginx = shutil.which("nginx") or "/usr/sbin/nginx"
    process = subprocess.Popen([nginx, "-c", str(folder / "nginx.conf")])
    for _ in range(100):
        try:
            httpx.head(f"http://127.0.0.1:{PORTS['no limit']}/data.bin").raise_for_status()
            return process
        except httpx.HTTPError:
            time.sleep(0.05)
    sys.exit(f"nginx does not answer: {(folder / 'log').read_text()}")


def _compare(folder: Path, port: int, rounds: int) -> dict[str, Measured]:
    runs: dict[str, list[Measured]] = {client: [] for client in CLIENTS}
    for _ in range(rounds):
        for client, command in CLIENTS.items():
            runs[client].append(_one(folder, port, command))
    return {client: median(found) for client, found in runs.items()}


def _one(folder: Path, port: int, command: list[str]) -> Measured:
    target = folder / "target"
    target.mkdir()
    url = f"http://127.0.0.1:{port}/data.bin"
    filled = [part.format(folder=target) if "{folder}" in part else part for part in command]
    arguments = [url, str(target)] if filled[0] == sys.executable else [url]
    found = measured([*filled, *arguments], cwd=HERE.parent)
    assert (target / "data.bin").stat().st_size == (folder / "data.bin").stat().st_size
    shutil.rmtree(target)
    return found


def _tell(figures: dict[str, dict[str, Measured]], mib: int, rounds: int) -> None:
    table = Table("server", "client", "seconds", "MiB/s", "CPU s", "peak MiB", "ours / it")
    for kind, clients in figures.items():
        for client, run in clients.items():
            ratio = run.wall_seconds / clients[OURS].wall_seconds
            table.add_row(
                kind, client, f"{run.wall_seconds:.2f}", f"{mib / run.wall_seconds:.0f}", f"{run.cpu_seconds:.2f}",
                f"{run.peak_mib:.0f}", f"{ratio:.2f} x",
            )  # fmt: skip
    Console().print(table)
    body = {
        "date": date.today().isoformat(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        "mib": mib,
        "rounds": rounds,
        "median": {kind: {c: asdict(r) for c, r in clients.items()} for kind, clients in figures.items()},
    }
    (HERE / "fetch.json").write_text(json.dumps(body, indent=1) + "\n")


if __name__ == "__main__":
    main()
