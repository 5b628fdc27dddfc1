"""The controller as a process of its own, as it is installed: started, killed, started again."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

LEASE_LOST = 1  # the exit code


class Controller:
    """One controller of one namespace."""

    def __init__(
        self,
        namespace: str,
        log: Path,
        *arguments: str,
        environment: dict[str, str] | None = None,
        everywhere: bool = False,
        first: str = "",
    ) -> None:
        """``first`` is Python that is run before the controller: to make it impatient, say."""
        self.namespace = namespace
        self.log = log
        self._how = ["-c", f"{first}\nfrom controller.main import main\nmain()"] if first else ["-m", "controller.main"]
        self._arguments = arguments if everywhere else ("--namespace", namespace, *arguments)
        self._environment = {**os.environ, **(environment or {})}
        self.process: subprocess.Popen[bytes] | None = None
        self._wanted = False

    def start(self) -> "Controller":
        """Start it; when it has lost its lease, as on a busy machine, it is started again, as a kubelet does."""
        self._wanted = True
        self._spawn()
        threading.Thread(target=self._restart, daemon=True).start()
        return self

    def _restart(self) -> None:
        process = self.process
        while self._wanted and process is self.process and process is not None:
            if process.poll() == LEASE_LOST:
                self._spawn()
                process = self.process
            time.sleep(0.1)

    def _spawn(self) -> None:
        command = [
            sys.executable, *self._how, "controller", "--lease-namespace", self.namespace,
             "--port", "0", "--lease-seconds", "5", "--provisioner", "byo", *self._arguments,
        ]  # fmt: skip
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=self._environment)

    def kill(self, number: signal.Signals = signal.SIGKILL) -> int:
        """End it; return its exit code."""
        assert self.process is not None
        self._wanted = False
        self.process.send_signal(number)
        return self.process.wait(20)

    def __enter__(self) -> "Controller":
        return self.start()

    def __exit__(self, *_: object) -> None:
        self._wanted = False
        if self.process is not None and self.process.poll() is None:
            self.kill(signal.SIGTERM)

    def events(self, name: str) -> list[dict[str, Any]]:
        """Return the log's events of a name."""
        found = []
        for line in self.log.read_text().splitlines():
            if line.startswith("{"):
                body = json.loads(line)
                if body["event"] == name:
                    found.append(body)
        return found


def until(what: Callable[[], Any], seconds: float = 30.0, every: float = 0.05) -> Any:
    """Return the first true answer of ``what``."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = what()
        if found:
            return found
        time.sleep(every)
    raise AssertionError(f"it did not come in {seconds} s: {what()!r}")
