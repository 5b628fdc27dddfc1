"""The two sides of a dataset on disk: parquet of conversations, written in groups so that memory stays flat."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from steps.messages import Conversation
from steps.spool import SCHEMA, from_batch

TRAIN_FILE = "train.parquet"
HELD_OUT_FILE = "heldout.parquet"
GROUP_ROWS = 8192
GROUP_BYTES = 4 << 20


class SideWriter:
    """Writes the rows of one side."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._writer = pq.ParquetWriter(path, SCHEMA, compression="zstd", use_dictionary=False)
        self._pending: list[pa.RecordBatch] = []
        self._rows, self._bytes = 0, 0

    def write(self, batch: pa.RecordBatch) -> None:
        """Add rows."""
        if not batch.num_rows:
            return
        self._pending.append(batch)
        self._rows += batch.num_rows
        self._bytes += batch.nbytes
        if self._rows >= GROUP_ROWS or self._bytes >= GROUP_BYTES:
            self.flush()

    def flush(self) -> None:
        """Write what is pending as one row group."""
        if self._pending:
            self._writer.write_table(pa.Table.from_batches(self._pending, SCHEMA), row_group_size=self._rows)
            self._pending, self._rows, self._bytes = [], 0, 0

    def close(self) -> None:
        """End the file."""
        self._writer.close()


@contextmanager
def writing(path: Path) -> Iterator[SideWriter]:
    """Open a side for writing; what goes wrong meanwhile is not hidden by ending the file."""
    side = SideWriter(path)
    try:
        yield side
        side.flush()
    except BaseException:
        with suppress(OSError, pa.ArrowException):
            side.close()
        raise
    side.close()


def load(path: Path) -> list[Conversation]:
    """Return all rows of one side."""
    with pq.ParquetFile(path) as file:
        return [row for batch in file.iter_batches() for row in from_batch(batch)]
