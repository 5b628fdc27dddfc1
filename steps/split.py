"""The two sides of a dataset on disk: parquet of conversations, written in groups so that memory stays flat."""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from steps.messages import Conversation
from steps.spool import SCHEMA, from_batch

TRAIN_FILE = "train.parquet"
HELD_OUT_FILE = "heldout.parquet"
GROUP_ROWS = 8192
GROUP_BYTES = 6 << 20


class SideWriter:
    """Writes the rows of one side."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._writer = pq.ParquetWriter(path, SCHEMA, compression="zstd", write_page_index=False)
        self._pending: list[pa.RecordBatch] = []
        self._rows, self._bytes = 0, 0
        self._beside = ThreadPoolExecutor(1)
        self._job: Future[None] | None = None

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
        """Write what is pending as one row group, beside what goes on."""
        if not self._pending:
            return
        self._settle()
        table = pa.Table.from_batches(self._pending, SCHEMA)
        self._job = self._beside.submit(self._writer.write_table, table, row_group_size=self._rows)
        self._pending, self._rows, self._bytes = [], 0, 0

    def close(self) -> None:
        """End the file."""
        self._beside.shutdown()
        try:
            self._settle()
        finally:
            self._writer.close()

    def _settle(self) -> None:
        if self._job is not None:
            self._job.result()


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
