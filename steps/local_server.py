"""The inference server on this machine, as a detached process: started, found again, stopped.

``server.json`` in a Workspace's folder says which process serves what. A process is taken for ours only when
its command line says so: a pid alone may have been given to somebody else.
"""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from presets.errors import ConfigError, TryAgainError

SERVER_FILE = "server.json"
LOG_FILE = "server.log"
STARTUP_SECONDS = 300.0
STOP_SECONDS = 75.0  # the server finishes what waits, for a minute at most


@dataclass(frozen=True, slots=True)
class Server:
    """A running server: its process, where it answers, and what it serves."""

    pid: int
    port: int
    serves: str  # key of what was deployed

    @property
    def endpoint(self) -> str:
        """The URL that it answers on."""
        return f"http://127.0.0.1:{self.port}"


def find(folder: Path) -> Server | None:
    """Return the server that runs for ``folder``, None when none does."""
    try:
        server = Server(**json.loads((folder / SERVER_FILE).read_text()))
    except (OSError, ValueError, TypeError):
        return None
    return server if _is_ours(server.pid) else None


def start(folder: Path, config: Path, serves: str) -> Server:
    """Start a detached server with ``config`` and wait until it listens.

    Raises:
        ConfigError: it ended while starting; the end of its log is in the message.
        TryAgainError: it did not listen in time.
    """
    announce = folder / "announce.json"
    announce.unlink(missing_ok=True)
    command = [sys.executable, "-m", "steps.serve", "--config", str(config), "--announce", str(announce)]
    with (folder / LOG_FILE).open("ab") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + STARTUP_SECONDS
    try:
        while not announce.exists():
            if process.poll() is not None:
                raise ConfigError(
                    "ServerEnded",
                    f"The server ended while starting: {_last_line(folder / LOG_FILE)}.",
                    fix="Read server.log.",
                )
            if time.monotonic() > deadline:
                raise TryAgainError("ServerSlow", "The server did not listen in time.", fix="Read server.log.")
            time.sleep(0.1)
    except BaseException:
        process.kill()
        raise
    said = json.loads(announce.read_text())
    server = Server(said["pid"], said["port"], serves)
    part = folder / f"{SERVER_FILE}.part"
    part.write_text(json.dumps(asdict(server)))
    part.replace(folder / SERVER_FILE)
    return server


def stop(folder: Path) -> bool:
    """Stop the server of ``folder``, with force when it does not end in time; whether there was one."""
    server = find(folder)
    (folder / SERVER_FILE).unlink(missing_ok=True)
    if server is None:
        return False
    os.kill(server.pid, signal.SIGTERM)
    deadline = time.monotonic() + STOP_SECONDS
    while _is_ours(server.pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    if _is_ours(server.pid):
        os.kill(server.pid, signal.SIGKILL)
    return True


def _is_ours(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        return b"steps.serve" in Path(f"/proc/{pid}/cmdline").read_bytes() and status != "Z"
    except (OSError, IndexError):
        return False


def _last_line(log: Path) -> str:
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1][:300] if lines else "it wrote nothing"
