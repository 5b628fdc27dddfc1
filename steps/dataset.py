"""The dataset as training wants it: audited, each row once, split once and for all, in parquet.

A row's side of the split follows from its own content, so that it stays there when rows are added, and no
copy of a held-out row can be trained on: duplicates go before the split.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from presets.errors import DataError
from presets.recipe import DataRecipe
from steps.readers import Row, read
from steps.shapes import Message, RowError, Shape, check_turns, choose_shape

TRAIN_FILE = "train.parquet"
HELD_OUT_FILE = "heldout.parquet"
SCHEMA = pa.schema([("messages", pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())])))])
ROWS_SHOWN = 5
WRITE_ROWS = 512


@dataclass
class Audit:
    """What was found in the data; written as ``audit.json``."""

    shape: str = ""
    shape_reason: str = ""
    files: list[dict[str, str]] = field(default_factory=list)
    rows_read: int = 0
    duplicates: int = 0
    rows_train: int = 0
    rows_held_out: int = 0
    characters: int = 0


def prepare(files: Iterable[tuple[Path, str]], data: DataRecipe, folder: Path) -> Audit:
    """Write train and held-out parquet below ``folder`` from ``files`` (path, sha256), in their order.

    Raises:
        DataError: a row cannot be used, or too few are left; the message names rows and remedy.
    """
    audit = Audit()
    pairs = list(files)
    audit.files = [{"name": path.name, "sha256": digest} for path, digest in pairs]
    rows = _checked(_read_all([path for path, _ in pairs], data.path), data, audit)
    smallest: tuple[float, list[Message]] | None = None
    with _Writer(folder / TRAIN_FILE) as train, _Writer(folder / HELD_OUT_FILE) as held_out:
        for messages in _unique(rows, audit):
            side = position(messages, data.seed)
            (held_out if side < data.held_out_fraction else train).write(messages)
            audit.characters += sum(len(m["content"]) for m in messages)
            if smallest is None or side < smallest[0]:
                smallest = (side, messages)
    audit.rows_train, audit.rows_held_out = train.rows, held_out.rows
    if audit.rows_held_out == 0 and data.held_out_fraction > 0 and smallest and audit.rows_train > 1:
        _move_one(smallest[1], folder, audit)
    _check_size(audit, data)
    return audit


def position(messages: list[Message], seed: int) -> float:
    """Return the row's place in [0, 1), a function of its content and the seed alone."""
    digest = hashlib.sha256(f"{seed}\n".encode() + _canonical(messages)).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def load(path: Path) -> list[list[Message]]:
    """Return all rows of a parquet file that :func:`prepare` wrote."""
    rows: list[list[Message]] = pq.read_table(path, schema=SCHEMA).column("messages").to_pylist()
    return rows


def _read_all(paths: list[Path], only: str | None) -> Iterator[Row]:
    chosen = [path for path in paths if only is None or path.name == Path(only).name]
    if not chosen:
        names = ", ".join(path.name for path in paths)
        raise DataError(
            "DatasetNotFound", f"No file is called {only!r}; there are {names}.", fix="Correct dataset_path."
        )
    for path in chosen:
        yield from read(path)


def _checked(rows: Iterator[Row], data: DataRecipe, audit: Audit) -> Iterator[list[Message]]:
    shape: Shape | None = None
    problems: list[str] = []
    count = 0
    for row in rows:
        if shape is None:
            shape = choose_shape(list(row.values), data)
            audit.shape, audit.shape_reason = shape.name, shape.reason
        audit.rows_read += 1
        try:
            messages = shape.to_messages(row.values)
            problem = check_turns(messages)
        except (RowError, ValueError) as error:
            messages, problem = [], str(error)
        if problem is None:
            yield messages
            continue
        count += 1
        if len(problems) < ROWS_SHOWN:
            problems.append(f"{row.place}: {problem}")
    if count:
        shown = "; ".join(problems) + (f"; and {count - ROWS_SHOWN} more" if count > ROWS_SHOWN else "")
        raise DataError(
            "RowsInvalid",
            f"{count} of {audit.rows_read} rows cannot be trained on. {shown}.",
            fix="Mend or remove these rows: each needs a question and ends with the assistant's answer.",
        )


def _unique(rows: Iterator[list[Message]], audit: Audit) -> Iterator[list[Message]]:
    seen: set[bytes] = set()
    for messages in rows:
        key = hashlib.blake2b(_normalised(messages), digest_size=16).digest()
        if key in seen:
            audit.duplicates += 1
            continue
        seen.add(key)
        yield messages


def _normalised(messages: list[Message]) -> bytes:
    """Case and white space aside, the same row is the same row."""
    return _canonical([{"role": m["role"], "content": " ".join(m["content"].lower().split())} for m in messages])


def _canonical(messages: list[Message]) -> bytes:
    return json.dumps([[m["role"], m["content"]] for m in messages], ensure_ascii=False).encode(errors="replace")


def _move_one(messages: list[Message], folder: Path, audit: Audit) -> None:
    """Keep one row out of a dataset so small that its share of held-out rows rounds to none."""
    rows = load(folder / TRAIN_FILE)
    rows.remove(messages)
    with _Writer(folder / TRAIN_FILE) as train, _Writer(folder / HELD_OUT_FILE) as held_out:
        held_out.write(messages)
        for row in rows:
            train.write(row)
    audit.rows_train, audit.rows_held_out = len(rows), 1


def _check_size(audit: Audit, data: DataRecipe) -> None:
    if audit.rows_read == 0:
        raise DataError("DatasetEmpty", "The dataset has no rows.", fix="Name a file with at least two rows.")
    if audit.rows_train == 0:
        raise DataError(
            "DatasetTooSmall",
            f"Nothing is left to train on: of {audit.rows_read} rows {audit.duplicates} are duplicates and "
            f"{audit.rows_held_out} are held out.",
            fix="Add rows, or lower tuning.evaluation.split.",
        )
    if data.held_out_fraction > 0 and audit.rows_held_out == 0:
        raise DataError(
            "DatasetTooSmall",
            f"{audit.rows_train} distinct row is too few to keep one out for the evaluation.",
            fix="Add rows, or set tuning.evaluation.split to 0.",
        )


class _Writer:
    """Writes rows to parquet in groups, so that memory stays flat."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._writer = pq.ParquetWriter(path, SCHEMA, compression="zstd")
        self._pending: list[list[Message]] = []
        self.rows = 0

    def __enter__(self) -> "_Writer":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:  # the file is of no use, and what went wrong must not be hidden by its end
            with suppress(OSError, pa.ArrowException):
                self._writer.close()
            return
        self._flush()
        self._writer.close()

    def write(self, messages: list[Message]) -> None:
        """Add one row."""
        self._pending.append(messages)
        self.rows += 1
        if len(self._pending) >= WRITE_ROWS:
            self._flush()

    def _flush(self) -> None:
        if self._pending:
            self._writer.write_table(pa.table({"messages": self._pending}, schema=SCHEMA))
            self._pending = []
