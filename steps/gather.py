"""The first pass: every row of every file read, understood, judged, and the good ones spooled with their keys."""

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path, PurePosixPath

import numpy as np
import pyarrow as pa

from presets.errors import DataError
from presets.recipe import AuditRecipe, DataRecipe
from steps import near_duplicates
from steps.audit import Audit, FileReport, Places
from steps.messages import Conversation, check_turns
from steps.privacy import emails_in, secrets_in
from steps.readers import Row, RowFile, open_rows
from steps.row_keys import row_keys
from steps.shapes import RowError, Shape, choose_shape
from steps.spool import BATCH_CHARACTERS, BATCH_ROWS, Numbers, Spool, to_batch

FILE_SHIFT = 40  # a place is (file, number) in one number: room for 2^40 rows a file
PEEKED_ROWS = 64


@dataclass(frozen=True, slots=True)
class Source:
    """A file of the input, how it is called in messages, and the digest of its bytes."""

    path: Path
    name: str
    sha256: str


@dataclass
class Gathered:
    """What the first pass saw beside the good rows."""

    files: list[RowFile] = field(default_factory=list)
    unparsable: Places = field(default_factory=Places)
    invalid: Places = field(default_factory=Places)
    secrets: Places = field(default_factory=Places)
    emails: Places = field(default_factory=Places)

    def place(self, number: int) -> str:
        """Return how to name the row of a place number."""
        return self.files[number >> FILE_SHIFT].place(number & ((1 << FILE_SHIFT) - 1))


def gather(sources: Sequence[Source], data: DataRecipe, rules: AuditRecipe, spool: Spool, audit: Audit) -> Gathered:
    """Read all of ``sources`` in their order into ``spool``.

    Raises:
        DataError: a file as a whole cannot be read, or its shape is not known.
    """
    gathered = Gathered()
    batch = _Batch(spool, gathered, data.seed, near=rules.near_duplicates == "remove")
    try:
        for source in _chosen(sources, data.path):
            _read_file(source, data, batch, gathered, audit)
        batch.flush()
    finally:
        batch.close()
    audit.characters = batch.characters
    audit.rows_bad = gathered.unparsable.count + gathered.invalid.count
    return gathered


def _chosen(sources: Sequence[Source], only: str | None) -> list[Source]:
    if only is None:
        return list(sources)
    wanted = PurePosixPath(only)
    found = [s for s in sources if PurePosixPath(s.name) == wanted or PurePosixPath(s.name).name == wanted.name]
    if not found:
        names = ", ".join(source.name for source in sources)
        raise DataError(
            "DatasetNotFound", f"No file is called {only!r}; there are {names}.", fix="Correct dataset_path."
        )
    return found


def _read_file(source: Source, data: DataRecipe, batch: "_Batch", gathered: Gathered, audit: Audit) -> None:
    file = open_rows(source.path, source.name)
    gathered.files.append(file)
    first_place = (len(gathered.files) - 1) << FILE_SHIFT
    rows = file.rows(source.path.parent / ".plain")
    peeked = list(islice(rows, PEEKED_ROWS))
    columns = list(dict.fromkeys(key for row in peeked for key in row.values))
    shape = choose_shape(columns, data) if columns else None
    count = 0
    for row in chain(peeked, rows):
        count += 1
        conversation = _understood(row, shape, file, gathered)
        if conversation is not None:
            batch.add(conversation, first_place | row.number)
    audit.rows_read += count
    ignored = tuple(c for c in columns if shape is not None and c not in shape.columns)
    told = (shape.name, shape.reason) if shape else ("", "there is no row")
    audit.files.append(FileReport(source.name, source.sha256, file.format, *told, count, ignored))


def _understood(row: Row, shape: Shape | None, file: RowFile, gathered: Gathered) -> Conversation | None:
    if row.problem is not None or shape is None:
        gathered.unparsable.add(f"{file.place(row.number)}: {row.problem or 'an object without keys'}")
        return None
    try:
        conversation = shape.read(row.values)
    except RowError as error:
        gathered.invalid.add(f"{file.place(row.number)}: {error}")
        return None
    problem = check_turns(conversation.messages)
    if problem is None:
        return conversation
    gathered.invalid.add(f"{file.place(row.number)}: {problem}")
    return None


class _Batch:
    """Good rows on their way to the spool; what can be done for many at once waits until there are many."""

    def __init__(self, spool: Spool, gathered: Gathered, seed: int, *, near: bool) -> None:
        self._spool, self._gathered, self._seed, self._near = spool, gathered, f"{seed}\n".encode(), near
        self._rows: list[Conversation] = []
        self._places: list[int] = []
        self._lengths: list[int] = []
        self._pending = 0
        self._beside = ThreadPoolExecutor(1)
        self._job: Future[None] | None = None
        self.characters = 0

    def add(self, row: Conversation, place: int) -> None:
        self._rows.append(row)
        self._places.append(place)
        length = sum([len(message["content"]) for message in row.messages])
        self._lengths.append(length)
        self._pending += length
        if len(self._rows) >= BATCH_ROWS or self._pending >= BATCH_CHARACTERS:
            self.flush()

    def flush(self) -> None:
        if self._rows:
            self._finish(self._rows, self._places, self._lengths)
            self.characters += self._pending
        self._rows, self._places, self._lengths, self._pending = [], [], [], 0

    def close(self) -> None:
        """Wait for what is under way; its error is raised here."""
        self._beside.shutdown()
        self._settle()

    def _finish(self, rows: list[Conversation], places: list[int], lengths: list[int]) -> None:
        batch = to_batch(rows)
        content, same = row_keys(rows, self._seed)
        numbers: dict[str, Numbers] = {
            "content": content,
            "same": same,
            "place": np.array(places, dtype=np.uint64),
            "characters": np.array(lengths, dtype=np.uint64),
        }
        none = dict.fromkeys(near_duplicates.BAND_NAMES, np.zeros(len(rows), np.uint64))
        numbers |= near_duplicates.signatures(batch) if self._near else none
        self._settle()  # one batch on its way at a time: memory stays flat
        self._job = self._beside.submit(self._put_down, batch, numbers, places)

    def _put_down(self, batch: pa.RecordBatch, numbers: dict[str, Numbers], places: list[int]) -> None:
        """Look through the texts and write them, which needs no interpreter and so a thread of its own pays."""
        self._look_for_secrets(batch, places)
        self._spool.add(batch, numbers)

    def _settle(self) -> None:
        if self._job is not None:
            self._job.result()

    def _look_for_secrets(self, batch: pa.RecordBatch, places: list[int]) -> None:
        messages = batch.column("messages")
        contents, offsets = messages.values.field("content"), np.asarray(messages.offsets)
        for found, counted in (
            (secrets_in(contents), self._gathered.secrets),
            (emails_in(contents), self._gathered.emails),
        ):
            rows = {int(np.searchsorted(offsets, index, side="right")) - 1 for index in found}
            for row in sorted(rows):
                counted.add(self._gathered.place(places[row]))
