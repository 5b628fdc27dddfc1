"""How fast is a large adapter pulled, every byte verified?  Against skopeo, curl and plain oras-py.

    python benchmarks/pull.py [--rounds 3] [--sizes 500,2048]

Random bytes, as adapters are, out of one registry in memory into memory. Every contestant is a process of its own,
measured from its start to its end, in turn, into an empty folder. kaiflow (as its steps) and skopeo verify digests as
they read; curl is followed by sha256sum, which counts for it; oras-py verifies nothing. Needs docker-registry, skopeo,
curl and GNU time (Debian packages), and room for three copies in /dev/shm.
"""

import shutil
import sys
import tempfile
from pathlib import Path

from rich.console import Console

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from benchmarks.contest import MEMORY, contest, random_blob
from benchmarks.measured import Measured, measured
from steps.docker_config import DockerConfig
from steps.oci_layout import LayoutStore
from steps.registry_store import RegistryStore
from steps.store import copy, require
from tests.registries import registry

OURS = """
import sys
from pathlib import Path
from steps.docker_config import DockerConfig
from steps.registry_store import RegistryStore
store = RegistryStore(sys.argv[1], DockerConfig([]))
store.check_out(store.find("1"), Path(sys.argv[2]))
"""
ORAS = """
import sys
from oras.client import OrasClient
OrasClient(insecure=True).pull(target=sys.argv[1] + ":1", outdir=sys.argv[2])
"""
CURL = """
set -e
mkdir -p "$3"
curl -sf -o "$3/adapter" "http://$1/blobs/$2"
echo "${2#sha256:}  $3/adapter" | sha256sum --quiet -c
"""


def _compare(size_mib: int, rounds: int) -> dict[str, list[Measured]]:
    runs: dict[str, list[Measured]] = {"kaiflow": [], "skopeo": [], "curl, sha256sum": [], "oras-py": []}
    with tempfile.TemporaryDirectory(dir=MEMORY) as name, registry(Path(name)) as address:
        folder, image = Path(name), f"{address}/bench/a"
        digest = _pushed(folder, image, size_mib)
        for number in range(rounds):
            for who in runs:
                target = folder / "out"
                runs[who].append(measured(_command(who, image, digest, target), HERE.parent))
                shutil.rmtree(target)
                speed = size_mib / runs[who][-1].wall_seconds
                Console().print(f"{size_mib} MiB, round {number + 1}, {who}: {speed:.0f} MiB/s")
    return runs


def _pushed(folder: Path, image: str, size_mib: int) -> str:
    """Push random bytes; return their digest. Only the registry keeps a copy."""
    store = LayoutStore(folder / "layout")
    random_blob(folder, store, size_mib).unlink()
    manifest = require(store, "1", "blob")
    copy(manifest, store, RegistryStore(image, DockerConfig([])), ["1"])
    shutil.rmtree(folder / "layout")
    return manifest.layers[0].digest


def _command(who: str, image: str, digest: str, target: Path) -> list[str]:
    if who == "kaiflow":
        return [sys.executable, "-c", OURS, image, str(target)]
    if who == "oras-py":
        return [sys.executable, "-c", ORAS, image, str(target)]
    if who == "skopeo":
        return [
            "skopeo", "copy", "--insecure-policy", "--preserve-digests", "--src-tls-verify=false", "--quiet",
            f"docker://{image}:1", f"oci:{target}:1",
        ]  # fmt: skip
    base, _, repository = image.partition("/")
    return ["bash", "-c", CURL, "curl", f"{base}/v2/{repository}", digest, str(target)]


if __name__ == "__main__":
    contest(__doc__ or "", _compare, HERE / "pull.json")
