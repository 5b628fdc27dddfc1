"""Which parts of a file are already here?  A line of facts, then a line per part; survives a kill."""

import json
from contextlib import suppress
from pathlib import Path


class Journal:
    """The parts that have been written; an entry is added only after its bytes."""

    def __init__(self, path: Path, part_bytes: int, done: set[int]) -> None:
        self._path = path
        self.part_bytes = part_bytes
        self.done = done

    @classmethod
    def open(cls, path: Path, version: str, size_bytes: int, part_bytes: int) -> "Journal":
        """Return the journal at ``path`` when it is of this version of the file, else a new one."""
        facts = {"version": version, "size_bytes": size_bytes, "part_bytes": part_bytes}
        try:
            head, *lines = path.read_text().split("\n")[:-1]  # what has no end was cut off while it was written
            if json.loads(head) == facts:
                return cls(path, part_bytes, {int(line) for line in lines if line.isdecimal()})
        except (OSError, ValueError):
            pass  # none, or one of no use
        path.write_text(json.dumps(facts) + "\n")
        return cls(path, part_bytes, set())

    def add(self, part: int) -> None:
        """Note that the bytes of ``part`` are written."""
        with self._path.open("a") as writer:
            writer.write(f"{part}\n")
        self.done.add(part)

    def remove(self) -> None:
        """Remove the journal: the file is complete, or of no use."""
        with suppress(FileNotFoundError):
            self._path.unlink()
