"""What is being written into a layout lies aside until it is whole; whose each part is, its name tells."""

import os
import socket
import time
from pathlib import Path

LEFT_SECONDS = 86400  # so long nothing has been written to a part whose writer cannot be asked for


def new_part(folder: Path) -> Path:
    """Return a new path in ``folder`` for what is being written, named after its writer."""
    return folder / f"{socket.gethostname()}.{os.getpid()}-{os.urandom(4).hex()}"


def drop_left(folder: Path) -> None:
    """Remove the parts of processes that are gone: of another host's, which cannot be asked for, the time tells."""
    for part in folder.iterdir():
        host, _, process = part.name.rpartition("-")[0].rpartition(".")
        if host == socket.gethostname() and process.isdecimal():
            left = not Path(f"/proc/{process}").exists()
        else:
            left = time.time() - written_at(part) > LEFT_SECONDS
        if left and part.is_file():
            part.unlink(missing_ok=True)


def written_at(path: Path) -> float:
    """Return when the file was written last, in seconds since the epoch; 0 where it is gone."""
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
