"""What is this machine?  Cores and memory as the cgroup allows them, GPUs, and how threads should behave.

No torch here: the provision step and the environment of the training step ask before torch is loaded.
"""

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")
GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class Machine:
    """What a step may use."""

    cores: int
    memory_bytes: int
    gpus: tuple[str, ...]
    bf16_on_cpu: bool  # the CPU multiplies bfloat16 in hardware


def describe() -> Machine:
    """Return what this process may use of the machine."""
    return Machine(cores(), memory_bytes(), gpus(), bf16_on_cpu())


def cores() -> int:
    """Return the number of cores that the cgroup's quota and the affinity allow, at least one."""
    available = len(os.sched_getaffinity(0))
    quota, _, period = _read(CGROUP / "cpu.max").partition(" ")
    if quota.isdecimal() and period.isdecimal():
        available = min(available, max(1, round(int(quota) / int(period))))
    return max(1, available)


def memory_bytes() -> int:
    """Return the memory that the cgroup and the machine allow."""
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit = _read(CGROUP / "memory.max")
    return min(total, int(limit)) if limit.isdecimal() else total


def gpus() -> tuple[str, ...]:
    """Return the names of the NVIDIA GPUs that the driver shows, none where there is no driver."""
    command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    try:
        shown = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return ()
    return _visible(tuple(line.strip() for line in shown.splitlines() if line.strip()))


def _visible(all_gpus: tuple[str, ...]) -> tuple[str, ...]:
    """Return those that CUDA_VISIBLE_DEVICES leaves: indices or ids, up to the first that is none, as CUDA reads it."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is None:
        return all_gpus
    left: list[str] = []
    for entry in (part.strip() for part in named.split(",")):
        index = int(entry) if entry.isdecimal() else 0 if entry.startswith(("GPU-", "MIG-")) else len(all_gpus)
        if index >= len(all_gpus):
            break
        left.append(all_gpus[index])
    return tuple(left)


def bf16_on_cpu() -> bool:
    """Whether bfloat16 products run in hardware here (AVX-512 BF16 or AMX); else float32 is faster."""
    flags = _read(Path("/proc/cpuinfo"))
    return "avx512_bf16" in flags or "amx_bf16" in flags


def thread_environment() -> dict[str, str]:
    """Return the OpenMP settings that hold up on shared cores.

    libgomp's threads spin while they wait: on cores that others use too, that costs five times the speed.
    """
    return {"OMP_WAIT_POLICY": "passive", "OMP_NUM_THREADS": str(cores())}


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
