"""Runs a command and says what it took: seconds on the wall, seconds of CPU, peak memory."""

import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Measured:
    """One run of a command."""

    wall_seconds: float
    cpu_seconds: float
    peak_mib: float


def measured(command: list[str], cwd: Path | None = None) -> Measured:
    """Run ``command`` to its end under GNU time: a child of this process would begin with this process's memory."""
    if not shutil.which("time"):
        sys.exit("GNU time is not installed: apt-get install time")
    with tempfile.NamedTemporaryFile("r") as told:
        start = time.perf_counter()
        timed = ["time", "-o", told.name, "-f", "%U %S %M", *command]
        done = subprocess.run(timed, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd=cwd)
        wall = time.perf_counter() - start
        if done.returncode:
            sys.exit(f"{' '.join(command)} ended with {done.returncode}: {done.stderr.decode()[-800:]}")
        user, system, peak_kib = told.read().split()
    return Measured(wall, float(user) + float(system), int(peak_kib) / 1024)


def median(runs: list[Measured]) -> Measured:
    """Return the run with the median wall time."""
    return sorted(runs, key=lambda run: run.wall_seconds)[len(runs) // 2]
