"""How fast is a large adapter pushed?  Against skopeo, curl and plain oras-py, to one registry in memory.

    python benchmarks/push.py [--rounds 3] [--sizes 500,2048]

Random bytes, as adapters are. Every contestant is a process of its own, measured from its start to its end, in turn,
into an empty registry: kaiflow (as its push step) and skopeo copy an image from an OCI layout, oras-py and curl push
the file; curl is told the digest by sha256sum, which counts for it. Once it is given the digest for nothing, so that it
only sends: as fast as the registry takes a blob from anybody. Needs docker-registry, skopeo, curl and GNU time
(Debian packages), and room for two copies in /dev/shm.
"""

import functools
import hashlib
import shutil
import sys
import tempfile
from pathlib import Path

from rich.console import Console

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from benchmarks.contest import MEMORY, contest, random_blob
from benchmarks.measured import Measured, measured
from steps.oci_layout import LayoutStore
from tests.registries import registry

SENDS = "curl, digest given"
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
digest=${3:-sha256:$(sha256sum "$2" | cut -d' ' -f1)}
place=$(curl -sf -X POST -D - -o /dev/null "http://$1/blobs/uploads/" | tr -d '\\r' | sed -n 's/^Location: //p')
curl -sf -o /dev/null -T "$2" -H 'Content-Type: application/octet-stream' "$place&digest=$digest"
"""


def _compare(size_mib: int, rounds: int) -> dict[str, list[Measured]]:
    runs: dict[str, list[Measured]] = {"kaiflow": [], "skopeo": [], "curl": [], "oras-py": [], SENDS: []}
    with tempfile.TemporaryDirectory(dir=MEMORY) as name:
        folder = Path(name)
        store = LayoutStore(folder / "layout")
        blob = random_blob(folder, store, size_mib)
        for number in range(rounds):
            for who in runs:
                with registry(folder) as address:
                    runs[who].append(measured(_command(who, address, blob, folder / "layout"), HERE.parent))
                shutil.rmtree(folder / "registry", ignore_errors=True)
                speed = size_mib / runs[who][-1].wall_seconds
                Console().print(f"{size_mib} MiB, round {number + 1}, {who}: {speed:.0f} MiB/s")
    return runs


@functools.cache
def digest_of(blob: Path) -> str:
    """Return the digest of the file, at nobody's expense."""
    with blob.open("rb") as reader:
        return f"sha256:{hashlib.file_digest(reader, 'sha256').hexdigest()}"


def _command(who: str, address: str, blob: Path, layout: Path) -> list[str]:
    if who == "kaiflow":
        return [sys.executable, "-c", OURS, f"{address}/bench/a", str(layout)]
    if who == "oras-py":
        return [sys.executable, "-c", ORAS, f"{address}/bench/a:1", str(blob)]
    if who in ("curl", SENDS):
        told = [digest_of(blob)] if who == SENDS else []
        return ["bash", "-c", CURL, "curl", f"{address}/v2/bench/a", str(blob), *told]
    return [
        "skopeo", "copy", "--insecure-policy", "--preserve-digests", "--dest-tls-verify=false", "--quiet",
        f"oci:{layout}:1", f"docker://{address}/bench/a:1",
    ]  # fmt: skip


if __name__ == "__main__":
    contest(__doc__ or "", _compare, HERE / "push.json")
