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

MESSAGE_EXTRAS = ("tool_calls", "name", "tool_call_id")
MESSAGE = pa.struct([(name, pa.large_string()) for name in ("role", "content", *MESSAGE_EXTRAS)])
SCHEMA = pa.schema([("messages", pa.list_(MESSAGE)), ("tools", pa.large_string())])
BATCH_ROWS = 2048
BATCH_CHARACTERS = 2 << 20
CHUNK_ROWS = 1 << 19

Numbers = npt.NDArray[np.uint64]


def to_batch(rows: Sequence[Conversation]) -> pa.RecordBatch:
    """Return the rows as Arrow keeps them."""
    messages = [message for row in rows for message in row.messages]
    large = pa.large_string()
    contents = pa.array([m["content"].encode("utf-8", errors="replace") for m in messages], pa.large_binary())
    columns = [pa.array([m["role"] for m in messages], large), contents.view(large)]
    columns += (
        [_optional([_stored(m, name) for m in messages]) for name in MESSAGE_EXTRAS]
        if _has_extras(messages)
        else [pa.nulls(len(messages), large) for _ in MESSAGE_EXTRAS]
    )
    offsets = np.cumsum([0, *[len(row.messages) for row in rows]], dtype=np.int32)
    turns = pa.ListArray.from_arrays(pa.array(offsets), pa.StructArray.from_arrays(columns, fields=list(MESSAGE)))
    tools = _optional([json.dumps(row.tools) if row.tools else None for row in rows])
    return pa.RecordBatch.from_arrays([turns, tools], schema=SCHEMA)


def _has_extras(messages: Sequence[Message]) -> bool:
    return any(len(message) > 2 for message in messages)


def _stored(message: Message, name: str) -> str | None:
    value = message.get(name)
    return json.dumps(value) if name == "tool_calls" and value is not None else value


def _optional(values: list[str | None]) -> pa.Array:
    return pa.array(values, pa.large_string())


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

    def numbers(self, name: str, start: int, count: int) -> Numbers:
        """Return one number of some rows."""
        return np.fromfile(self._folder / f"{name}.u64", np.uint64, count, offset=start * 8)

    def chunks(self, name: str) -> Iterator[tuple[int, Numbers]]:
        """Yield (index of the first row, numbers) for half a million rows at a time."""
        for start in range(0, self.rows, CHUNK_ROWS):
            yield start, self.numbers(name, start, CHUNK_ROWS)

    def groups(self, name: str, kept: npt.NDArray[np.bool_]) -> Iterator[tuple[Numbers, npt.NDArray[np.int64]]]:
        """Yield (keys, rows) of the kept rows, about half a million at a time, rows of one key always together.

        The keys of a group are in order, and the rows of one key too: what repeats stands behind what it repeats.
        """
        parts = -(-self.rows // CHUNK_ROWS)
        for part in range(parts):
            keys, rows = [], []
            for start, numbers in self.chunks(name):
                mine = np.flatnonzero((numbers % np.uint64(parts) == part) & kept[start : start + len(numbers)])
                keys.append(numbers[mine])
                rows.append(mine + start)
            found = np.concatenate(keys)
            order = np.argsort(found, kind="stable")
            yield found[order], np.concatenate(rows)[order]
