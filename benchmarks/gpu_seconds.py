"""For how many seconds is a GPU node paid for that does not train?  The DAG, simulated, against KAITO's sequence.

    python benchmarks/gpu_seconds.py

What runs after what is read off our own plan of a Workspace; how long a step takes comes from figures measured in this
folder (pull.json: our pull, oras-py's; push.json) and from what is assumed below, the same for both: nothing here has
run on a GPU. KAITO (v0.12): node first; then, on it, weights, data over one connection, training, the push of a gzip -9
layer; then the node stays until a person deletes the Workspace.
"""

import json
import sys
import time
import zlib
from dataclasses import asdict, dataclass
from datetime import date
from os import urandom
from pathlib import Path

from rich.console import Console
from rich.table import Table

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from controller.loading import load_one
from pipelines.plan import plan
from presets.catalogue import Shape, catalogue
from presets.memory import adapter_parameters

MIB = 1 << 20
# Assumed, and the same for both.
BOOT_SECONDS = 240.0  # what KAITO waits for a NodeClaim; the image of the tuning container included
LOAD_SECONDS = 60.0  # weights from the disk into the card, quantised
RELEASE_SECONDS = 60.0  # ours alone: the pod that gives the node back starts, the machine ends
CONNECTION_MIB_PER_SECOND = 20.0  # one connection to where the rows lie, as in fetch.py
TRAIN_SECONDS = 3600.0
SCENARIOS = {"rows of 20 MiB": 20, "rows of 2 GiB": 2 << 10, "rows of 10 GiB": 10 << 10}
MODELS = ("phi-3-mini-4k-instruct", "llama-3.1-8b-instruct")


@dataclass(frozen=True)
class Seconds:
    """Of a GPU node that does not train."""

    boot: float
    beside_boot: float  # up to the end of the push
    after: float | None = None  # from there until it is given back; None: nobody does

    @property
    def total(self) -> float:
        """Both."""
        return self.boot + self.beside_boot


def main() -> None:
    """Simulate, print a table and write JSON."""
    speeds = {who: _speed("pull.json", who) for who in ("kaiflow", "oras-py")}
    gzip_speed = _gzip_mib_per_second()
    figures = {}
    table = Table("model", "data", "kaiflow, s", "KAITO, s", "ratio", "without the boot", "after the push")
    for name in MODELS:
        shape = catalogue()[name].shape
        assert shape is not None
        for what, data_mib in SCENARIOS.items():
            adapter_mib = adapter_parameters(shape, catalogue()[name].lora_targets, 8) * 4 / MIB
            ours = _ours(shape, adapter_mib, data_mib, speeds)
            theirs = _kaito(shape, adapter_mib, data_mib, speeds, gzip_speed)
            ratio, beside = ours.total / theirs.total, ours.beside_boot / theirs.beside_boot
            table.add_row(
                name, what, f"{ours.total:.0f}", f"{theirs.total:.0f}", f"{ratio:.2f}", f"{beside:.2f}",
                f"{ours.after:.0f} s against for ever",
            )  # fmt: skip
            figures[f"{name}, {what}"] = {"kaiflow": asdict(ours), "kaito": asdict(theirs), "ratio": ratio}
    table.add_row("any", "rows that fail their audit", "0", "for ever", "0", "0", "0 s against for ever")
    Console(width=130).print(table)
    (HERE / "gpu_seconds.json").write_text(json.dumps({
        "date": date.today().isoformat(), "speeds_mib_per_second": {**speeds, "gzip -9": gzip_speed}, "runs": figures,
    }, indent=1) + "\n")  # fmt: skip


def _ours(shape: Shape, adapter_mib: float, data_mib: float, speeds: dict[str, float]) -> Seconds:
    """Read off the plan which steps lie on the node, and add up what they take."""
    made = plan(load_one(HERE.parent / "examples" / "image-to-volume.yaml", None).recipe)
    steps = {step.verb: step for step in made.steps}
    assert steps["provision"].after == ("fetch",)  # no node before the rows have passed
    assert steps["release"].after == ("tune",)  # none behind the training
    assert [step.verb for step in made.steps if step.on_gpu] == ["tune"]
    pulled = (_weights_mib(shape) + data_mib) / speeds["kaiflow"]  # by the tune step, when its node is there
    push = adapter_mib / _speed("push.json", "kaiflow")  # beside the release
    return Seconds(BOOT_SECONDS, pulled + LOAD_SECONDS + push, RELEASE_SECONDS - push)


def _kaito(shape: Shape, adapter_mib: float, data_mib: float, speeds: dict[str, float], gzip_speed: float) -> Seconds:
    weights = _weights_mib(shape) / speeds["oras-py"]  # by an oras init container
    push = adapter_mib / gzip_speed + adapter_mib / _speed("push.json", "oras-py")
    return Seconds(BOOT_SECONDS, weights + data_mib / CONNECTION_MIB_PER_SECOND + LOAD_SECONDS + push)


def _weights_mib(shape: Shape) -> float:
    return 2 * shape.parameters / MIB


def _speed(file: str, who: str) -> float:
    """Return the median speed of the largest size in MiB/s."""
    sizes = json.loads((HERE / file).read_text())["sizes_mib"]
    size = max(sizes, key=int)
    seconds = sorted(run["wall_seconds"] for run in sizes[size][who])
    return int(size) / seconds[len(seconds) // 2]


def _gzip_mib_per_second() -> float:
    data = urandom(16 * MIB)
    start = time.perf_counter()
    zlib.compress(data, 9)
    return 16 / (time.perf_counter() - start)


if __name__ == "__main__":
    main()
