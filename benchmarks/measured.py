"""Runs a command and says what it took: seconds on the wall, seconds of CPU, peak memory."""

import os
import subprocess
import sys
import time
from dataclasses import dataclass


@dataclass(frozen=True)
class Measured:
    """One run of a command."""

    wall_seconds: float
    cpu_seconds: float
    peak_mib: float


def measured(command: list[str], **options: object) -> Measured:
    """Run ``command`` to its end; its peak memory includes that of children it waited for."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, **options)  # type: ignore[call-overload]
    said = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    process.stderr.close()
    if process.returncode:
        sys.exit(f"{' '.join(command)} ended with {process.returncode}: {said.decode()[-800:]}")
    return Measured(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def median(runs: list[Measured]) -> Measured:
    """Return the run with the median wall time."""
    return sorted(runs, key=lambda run: run.wall_seconds)[len(runs) // 2]
