"""Rows on disk between two passes: written once as they are read, read once as they are sorted out.

A batch is an Arrow table of conversations. Beside it numbers of every row (its keys, where it stood) lie in
plain arrays, a file each, so that a pass over one of them needs eight bytes a row of memory and no more.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from steps.messages import Conversation, Message

MESSAGE = pa.struct([(name, pa.large_string()) for name in ("role", "content", "tool_calls", "name", "tool_call_id")])
SCHEMA = pa.schema([("messages", pa.list_(MESSAGE)), ("tools", pa.large_string())])
BATCH_ROWS = 1024
BATCH_CHARACTERS = 4 << 20

Numbers = npt.NDArray[np.uint64]


def to_batch(rows: Sequence[Conversation]) -> pa.RecordBatch:
    """Return the rows as Arrow keeps them."""
    offsets, roles, contents, calls, names, ids = [0], [], [], [], [], []
    for row in rows:
        for message in row.messages:
            roles.append(message["role"])
            contents.append(message["content"].encode("utf-8", errors="replace"))
            calls.append(json.dumps(message["tool_calls"]) if "tool_calls" in message else None)
            names.append(message.get("name"))
            ids.append(message.get("tool_call_id"))
        offsets.append(len(roles))
    large = pa.large_string()
    content = pa.array(contents, pa.large_binary()).view(large)
    columns = [pa.array(roles, large), content, *(pa.array(c, large) for c in (calls, names, ids))]
    messages = pa.ListArray.from_arrays(
        pa.array(offsets, pa.int32()), pa.StructArray.from_arrays(columns, fields=list(MESSAGE))
    )
    tools = pa.array([json.dumps(row.tools) if row.tools else None for row in rows], pa.large_string())
    return pa.RecordBatch.from_arrays([messages, tools], schema=SCHEMA)


def from_batch(batch: pa.RecordBatch | pa.Table) -> Iterator[Conversation]:
    """Yield the rows that :func:`to_batch` wrote."""
    for row in batch.to_pylist():
        yield Conversation([_message(m) for m in row["messages"]], json.loads(row["tools"]) if row["tools"] else None)


def _message(stored: dict[str, Any]) -> Message:
    message: Message = {name: value for name, value in stored.items() if value is not None}
    if "tool_calls" in message:
        message["tool_calls"] = json.loads(message["tool_calls"])
    return message


class Spool:
    """Rows and their numbers in a folder, appended to and then read."""

    def __init__(self, folder: Path, numbers: Sequence[str]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._sink = pa.OSFile(str(folder / "rows.arrow"), "wb")
        options = pa.ipc.IpcWriteOptions(compression="lz4")
        self._writer = pa.ipc.new_stream(self._sink, SCHEMA, options=options)
        self._files = {name: (folder / f"{name}.u64").open("wb") for name in numbers}
        self.rows = 0

    def add(self, batch: pa.RecordBatch, numbers: dict[str, Numbers]) -> None:
        """Append a batch and the numbers of its rows."""
        self._writer.write_batch(batch)
        for name, file in self._files.items():
            file.write(np.ascontiguousarray(numbers[name], dtype=np.uint64).data)
        self.rows += batch.num_rows

    def close(self) -> None:
        """End the writing; may be said twice."""
        if self._sink.closed:
            return
        self._writer.close()
        self._sink.close()
        for file in self._files.values():
            file.close()

    def batches(self) -> Iterator[tuple[int, pa.RecordBatch]]:
        """Yield (index of its first row, batch) in order."""
        start = 0
        with pa.OSFile(str(self._folder / "rows.arrow")) as source, pa.ipc.open_stream(source) as reader:
            for batch in reader:
                yield start, batch
                start += batch.num_rows

    def numbers(self, name: str) -> Numbers:
        """Return one number of every row."""
        return np.fromfile(self._folder / f"{name}.u64", dtype=np.uint64)
