"""Contestants that move a large file, in turn: speeds, ratios against ours, CPU and memory; a table and JSON."""

import argparse
import json
import os
import platform
import shutil
import sys
from collections.abc import Callable
from dataclasses import asdict
from datetime import date
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.measured import Measured, median
from steps.oci_layout import LayoutStore
from steps.store import publish

MEMORY = Path("/dev/shm")
MIB = 1 << 20


def contest(doc: str, compare: Callable[[int, int], dict[str, list[Measured]]], path: Path) -> None:
    """Run ``compare(size_mib, rounds)`` for every size that the command line asks for, and tell after each."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sizes", default="500,2048", help="MiB")
    options = parser.parse_args()
    for program in ("skopeo", "curl"):
        if not shutil.which(program):
            sys.exit(f"{program} is not installed: apt-get install {program}")
    figures = {}
    for size in map(int, options.sizes.split(",")):
        figures[size] = compare(size, options.rounds)
        tell(figures, options.rounds, path)


def random_blob(folder: Path, store: LayoutStore, size_mib: int) -> Path:
    """Return random bytes, as adapters are, that lie once in the layout and under a name of their own."""
    source = folder / "adapter.safetensors"
    with source.open("wb") as writer:
        for _ in range(size_mib):
            writer.write(os.urandom(MIB))
    manifest = publish(store, "application/x", {source.name: source}, {}, ["1"])
    source.unlink()
    store.check_out(manifest, folder)  # a link
    return source


def tell(figures: dict[int, dict[str, list[Measured]]], rounds: int, path: Path) -> None:
    """Print the table of figures by size in MiB and contestant, and write all of it to ``path``."""
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
    path.write_text(json.dumps(body, indent=1) + "\n")
