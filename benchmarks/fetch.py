"""How fast does a dataset arrive?  Against curl, aria2c, requests and huggingface_hub, from one nginx on loopback.

    python benchmarks/fetch.py [--rounds 5]

Two servers: one that gives every connection 20 MiB/s, as far-away stores do (a file of 200 MiB), and one without a
limit (2 GiB). All clients
are processes of their own, started in turn. What a run needs is the file and its sha256, which ours takes on the way:
so the peers are measured with a sha256 behind them, and all of them also without. Needs nginx, curl, aria2c and GNU
time (Debian's nginx-light, curl, aria2, time), and requests and huggingface_hub beside kaiflow.
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
LIMITED, UNLIMITED = "20 MiB/s a connection", "no limit"
PORTS = {LIMITED: 18081, UNLIMITED: 18082}
MIB = {LIMITED: 200, UNLIMITED: 2048}
OURS, ALONE = "kaiflow", "kaiflow, digest off"
WITH_DIGEST = " + sha256"
IMPORT = (
    "import sys; from pathlib import Path; from steps.connections import Guard; from steps.download import download;"
)
NO_DIGEST = "from steps import transfer; transfer._PrefixHash.run = lambda self: None;"
FETCH = "download(sys.argv[1], Path(sys.argv[2]), Guard(True), 1 << 40, lambda have, total: None)"
REQUESTS = (
    "import sys, requests; r = requests.get(sys.argv[1], stream=True); r.raise_for_status();"
    "f = open(sys.argv[2] + '/data.bin', 'wb'); [f.write(c) for c in r.iter_content(1 << 20)]; f.close();"
)
HUB = (
    "import sys; from huggingface_hub.file_download import http_get;"
    "f = open(sys.argv[2] + '/data.bin', 'wb'); http_get(sys.argv[1], f); f.close();"
)
HASH = "import hashlib; hashlib.file_digest(open(sys.argv[2] + '/data.bin', 'rb'), 'sha256');"
CURL = 'curl -sS -o "$1/data.bin" "$0"'
ARIA = 'aria2c -q -x8 -s8 -k1M --file-allocation=none -d "$1" -o data.bin "$0"'
SUM = ' && sha256sum "$1/data.bin"'
CLIENTS = {  # each is given the address and a folder
    OURS: [sys.executable, "-c", IMPORT + FETCH],
    f"curl{WITH_DIGEST}": ["sh", "-c", CURL + SUM],
    f"aria2c -x8{WITH_DIGEST}": ["sh", "-c", ARIA + SUM],
    f"requests{WITH_DIGEST}": [sys.executable, "-c", REQUESTS + HASH],
    f"huggingface_hub{WITH_DIGEST}": [sys.executable, "-c", HUB + HASH],
    ALONE: [sys.executable, "-c", IMPORT + NO_DIGEST + FETCH],
    "curl": ["sh", "-c", CURL],
    "aria2c -x8": ["sh", "-c", ARIA],
    "requests": [sys.executable, "-c", REQUESTS],
    "huggingface_hub": [sys.executable, "-c", HUB],
}


def main() -> None:
    """Run all clients in turn against both servers, print a table and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    for program in ("nginx", "curl", "aria2c"):
        if not shutil.which(program) and not Path(f"/usr/sbin/{program}").exists():
            sys.exit(f"{program} is not installed: apt-get install nginx-light curl aria2")
    with tempfile.TemporaryDirectory(dir="/dev/shm") as name:
        folder = Path(name)
        for kind, mib in MIB.items():
            subprocess.run(
                ["head", "-c", str(mib << 20), "/dev/urandom"], stdout=_source(folder, kind).open("wb"), check=True
            )
        server = _serve(folder)
        try:
            figures = {kind: _compare(folder, kind, options.rounds) for kind in PORTS}
        finally:
            server.terminate()
            server.wait()
    _tell(figures, options.rounds)


def _source(folder: Path, kind: str) -> Path:
    (folder / str(MIB[kind])).mkdir(exist_ok=True)
    return folder / str(MIB[kind]) / "data.bin"


def _serve(folder: Path) -> "subprocess.Popen[bytes]":
    folder.chmod(0o755)
    slow = "limit_rate 20m;"
    servers = "".join(
        f"server {{ listen 127.0.0.1:{port}; root {folder}/{MIB[kind]}; {slow if kind == LIMITED else ''} }}"
        for kind, port in PORTS.items()
    )
    http = f"http {{ access_log off; sendfile on; {servers} }}"
    config = f"user root; daemon off; pid {folder}/pid; error_log {folder}/log; events {{}} {http}"
    (folder / "nginx.conf").write_text(config)
    nginx = shutil.which("nginx") or "/usr/sbin/nginx"
    process = subprocess.Popen([nginx, "-c", str(folder / "nginx.conf")])
    for _ in range(100):
        try:
            httpx.head(f"http://127.0.0.1:{PORTS[UNLIMITED]}/data.bin").raise_for_status()
            return process
        except httpx.HTTPError:
            time.sleep(0.05)
    sys.exit(f"nginx does not answer: {(folder / 'log').read_text()}")


def _compare(folder: Path, kind: str, rounds: int) -> dict[str, Measured]:
    runs: dict[str, list[Measured]] = {client: [] for client in CLIENTS}
    for _ in range(rounds):
        for client, command in CLIENTS.items():
            runs[client].append(_one(folder, kind, command))
    return {client: median(found) for client, found in runs.items()}


def _one(folder: Path, kind: str, command: list[str]) -> Measured:
    target = folder / "target"
    target.mkdir()
    url = f"http://127.0.0.1:{PORTS[kind]}/data.bin"
    found = measured([*command, url, str(target)], cwd=HERE.parent)
    assert (target / "data.bin").stat().st_size == MIB[kind] << 20
    shutil.rmtree(target)
    return found


def _tell(figures: dict[str, dict[str, Measured]], rounds: int) -> None:
    table = Table("server", "client", "seconds", "MiB/s", "CPU s", "peak MiB", "our speed / its")
    for kind, clients in figures.items():
        for client, run in clients.items():
            ours = clients[OURS if client.endswith(WITH_DIGEST) or client == OURS else ALONE]
            ratio = run.wall_seconds / ours.wall_seconds
            table.add_row(
                kind, client, f"{run.wall_seconds:.2f}", f"{MIB[kind] / run.wall_seconds:.0f}",
                f"{run.cpu_seconds:.2f}",
                f"{run.peak_mib:.0f}", f"{ratio:.2f} x",
            )  # fmt: skip
    Console().print(table)
    body = {
        "date": date.today().isoformat(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        "mib": MIB,
        "rounds": rounds,
        "median": {kind: {c: asdict(r) for c, r in clients.items()} for kind, clients in figures.items()},
    }
    (HERE / "fetch.json").write_text(json.dumps(body, indent=1) + "\n")


if __name__ == "__main__":
    main()
