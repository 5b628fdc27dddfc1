"""How long do people wait for the command line?  Against the bare interpreter, interleaved, best and median.

python benchmarks/start_up.py
"""

import datetime as dt
import json
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROUNDS = 9
HERE = Path(__file__).parent
EXAMPLE = str(HERE.parent / "examples" / "qlora-configmap.yaml")
KAIFLOW = [sys.executable, "-m", "controller.main"]
COMMANDS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "kaiflow --help": [*KAIFLOW, "--help"],
    "kaiflow validate": [*KAIFLOW, "validate", EXAMPLE],
    "kaiflow plan": [*KAIFLOW, "plan", EXAMPLE],
    "kaiflow render": [*KAIFLOW, "render", EXAMPLE],
}


def main() -> None:
    """Measure, print, write."""
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(ROUNDS):
        for name, command in COMMANDS.items():
            began = time.perf_counter()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            times[name].append(time.perf_counter() - began)
    bare = statistics.median(times["python -c pass"])
    rows = {
        name: {"best_s": min(t), "median_s": statistics.median(t), "times_python": statistics.median(t) / bare}
        for name, t in times.items()
    }
    print(f"{'command':<20}{'best':>9}{'median':>9}{'x python':>10}")
    for name, row in rows.items():
        print(f"{name:<20}{row['best_s']:>8.3f}s{row['median_s']:>8.3f}s{row['times_python']:>9.1f}x")
    result = {"date": dt.date.today().isoformat(), "machine": platform.processor() or platform.machine(), "rows": rows}
    (HERE / "start_up.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
