"""How fast is a large adapter pushed?  Against skopeo, curl and plain oras-py, to one registry in memory.

    python benchmarks/push.py [--rounds 3] [--sizes 500,2048]

Random bytes, as adapters are. Every contestant is a process of its own, measured from its start to its end, in turn,
into an empty registry: kaiflow (as its push step) and skopeo copy an image from an OCI layout, oras-py and curl push
the file; curl is told the digest by sha256sum, which counts for it. Needs docker-registry, skopeo, curl and GNU time
(Debian packages), and room for two copies in /dev/shm.
"""

import argparse
import json
import os
import platform
import shutil
import sys
import tempfile
from dataclasses import asdict
from datetime import date
from pathlib import Path

from rich.console import Console
from rich.table import Table

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from benchmarks.measured import Measured, measured, median  # noqa: E402
from steps.oci_layout import LayoutStore  # noqa: E402
from steps.store import publish  # noqa: E402
from tests.registries import registry  # noqa: E402

MEMORY = Path("/dev/shm")
MIB = 1 << 20
OURS = """
import sys
from pathlib import Path
from steps.docker_config import DockerConfig
from steps.oci_layout import LayoutStore
from steps.registry_store import RegistryStore
from steps.store import copy
source = LayoutStore(Path(sys.argv[2]))
copy(source.find("1"), source, RegistryStore(sys.argv[1], DockerConfig([])), ["1"])
"""
ORAS = """
import sys
from oras.client import OrasClient
OrasClient(insecure=True).push(target=sys.argv[1], files=[sys.argv[2]], disable_path_validation=True)
"""
CURL = """
set -e
digest=sha256:$(sha256sum "$2" | cut -d' ' -f1)
place=$(curl -sf -X POST -D - -o /dev/null "http://$1/blobs/uploads/" | tr -d '\\r' | sed -n 's/^Location: //p')
curl -sf -o /dev/null -T "$2" -H 'Content-Type: application/octet-stream' "$place&digest=$digest"
"""


def main() -> None:
    """Push in turn, print a table and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sizes", default="500,2048", help="MiB")
    options = parser.parse_args()
    for program in ("skopeo", "curl"):
        if not shutil.which(program):
            sys.exit(f"{program} is not installed: apt-get install {program}")
    figures = {}
    for size in map(int, options.sizes.split(",")):
        figures[size] = _compare(size, options.rounds)
        _tell(figures, options.rounds)


def _compare(size_mib: int, rounds: int) -> dict[str, list[Measured]]:
    runs: dict[str, list[Measured]] = {"kaiflow": [], "skopeo": [], "curl": [], "oras-py": []}
    with tempfile.TemporaryDirectory(dir=MEMORY) as name:
        folder = Path(name)
        store = LayoutStore(folder / "layout")
        blob = _blob(folder, store, size_mib)
        for number in range(rounds):
            for who in runs:
                with registry(folder) as address:
                    runs[who].append(measured(_command(who, address, blob, folder / "layout"), HERE.parent))
                shutil.rmtree(folder / "registry", ignore_errors=True)
                speed = size_mib / runs[who][-1].wall_seconds
                Console().print(f"{size_mib} MiB, round {number + 1}, {who}: {speed:.0f} MiB/s")
    return runs


def _blob(folder: Path, store: LayoutStore, size_mib: int) -> Path:
    """Return random bytes that lie once in the layout, for skopeo, and under a name of their own."""
    source = folder / "adapter.safetensors"
    with source.open("wb") as writer:
        for _ in range(size_mib):
            writer.write(os.urandom(MIB))
    manifest = publish(store, "application/x", {source.name: source}, {}, ["1"])
    source.unlink()
    store.check_out(manifest, folder)  # a link
    return source


def _command(who: str, address: str, blob: Path, layout: Path) -> list[str]:
    if who == "kaiflow":
        return [sys.executable, "-c", OURS, f"{address}/bench/a", str(layout)]
    if who == "oras-py":
        return [sys.executable, "-c", ORAS, f"{address}/bench/a:1", str(blob)]
    if who == "curl":
        return ["bash", "-c", CURL, "curl", f"{address}/v2/bench/a", str(blob)]
    return [
        "skopeo", "copy", "--insecure-policy", "--preserve-digests", "--dest-tls-verify=false", "--quiet",
        f"oci:{layout}:1", f"docker://{address}/bench/a:1",
    ]  # fmt: skip


def _tell(figures: dict[int, dict[str, list[Measured]]], rounds: int) -> None:
    table = Table("MiB", "contestant", "MiB/s", "ours / its", "CPU s", "peak MiB")
    for size, runs in figures.items():
        middle = {who: median(found) for who, found in runs.items()}
        for who, run in middle.items():
            ratio = run.wall_seconds / middle["kaiflow"].wall_seconds
            table.add_row(
                str(size), who, f"{size / run.wall_seconds:.0f}", f"{ratio:.2f} x", f"{run.cpu_seconds:.1f}",
                f"{run.peak_mib:.0f}",
            )  # fmt: skip
    Console(width=100).print(table)
    body = {
        "date": date.today().isoformat(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores; Python {platform.python_version()}",
        "rounds": rounds,
        "sizes_mib": {
            s: {who: [asdict(r) for r in found] for who, found in runs.items()} for s, runs in figures.items()
        },
    }
    (HERE / "push.json").write_text(json.dumps(body, indent=1) + "\n")


if __name__ == "__main__":
    main()
