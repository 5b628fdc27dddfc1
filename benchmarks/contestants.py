"""The controllers that are compared: each a process, its CPU and its memory as the kernel counts them."""

import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
CONTESTANTS = ("kaiflow", "kopf", "kopf + uvloop")  # kopf takes uvloop where it finds it; pip brings it none
WITHOUT_UVLOOP = "import sys; sys.modules['uvloop'] = None; from kopf.cli import main; main()"


class Process:
    """A contestant at work: its CPU and its memory, children included."""

    def __init__(self, who: str, namespace: str, folder: Path, environment: dict[str, str]) -> None:
        python = [sys.executable, "-m"]
        kopf = ["run", "-n", namespace, "--standalone", "-q", str(HERE / "peers/kopf_mirror.py")]
        commands = {
            "kaiflow": [
                *python, "controller.main", "controller", "-n", namespace, "--lease-namespace", namespace,
                "--port", "0", "--provisioner", "byo",
            ],
            "kopf": [sys.executable, "-c", WITHOUT_UVLOOP, *kopf],
            "kopf + uvloop": [*python, "kopf", *kopf],
        }  # fmt: skip
        log = (folder / f"{who}.log").open("ab")
        self._process = subprocess.Popen(commands[who], env={**os.environ, **environment}, stdout=log, stderr=log)

    def _all(self) -> list[int]:
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        return [self._process.pid, *map(int, children)]

    def cpu_seconds(self) -> float:
        """Return the CPU used so far."""
        total = 0
        for pid in self._all():
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            total += int(fields[11]) + int(fields[12])
        return total / TICKS_PER_SECOND

    def rss_mib(self) -> float:
        """Return the memory in use."""
        pages = sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in self._all())
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20

    def end(self) -> None:
        """Stop it."""
        self._process.terminate()
        self._process.wait(30)
