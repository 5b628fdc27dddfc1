"""Rows of tables: parquet, arrow (file and stream), csv and tsv."""

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from presets.errors import DataError
from steps.json_rows import Found

BATCH_ROWS = 512
MANY_BYTES = 64 << 20  # a row group larger than this is read in smaller batches
csv.field_size_limit(1 << 26)


def parquet_rows(path: Path, name: str) -> Iterator[Found]:
    """Yield the rows of a parquet file; memory is that of one row group's compressed pages and a batch."""
    try:
        with pq.ParquetFile(path, memory_map=False, buffer_size=1 << 20, pre_buffer=False) as file:
            number = 0
            for batch in file.iter_batches(batch_size=_batch_rows(file), use_threads=False):
                for values in batch.to_pylist():
                    number += 1
                    yield number, values, None
    except (pa.ArrowException, OSError) as error:
        raise _damaged(name, "parquet", error) from error


def _batch_rows(file: pq.ParquetFile) -> int:
    meta = file.metadata
    if not meta.num_rows:
        return BATCH_ROWS
    row_bytes = sum(meta.row_group(i).total_byte_size for i in range(meta.num_row_groups)) / meta.num_rows
    return max(1, min(BATCH_ROWS, int(MANY_BYTES / max(1.0, row_bytes) / 8)))


def arrow_rows(path: Path, name: str, *, stream: bool) -> Iterator[Found]:
    """Yield the rows of an Arrow IPC file, or of a stream as `datasets` writes it."""
    try:
        with pa.OSFile(str(path)) as source:
            reader: Any = pa.ipc.open_stream(source) if stream else pa.ipc.open_file(source)
            batches = reader if stream else (reader.get_batch(i) for i in range(reader.num_record_batches))
            number = 0
            for batch in batches:
                for start in range(0, batch.num_rows, BATCH_ROWS):
                    for values in batch.slice(start, BATCH_ROWS).to_pylist():
                        number += 1
                        yield number, values, None
    except (pa.ArrowException, OSError) as error:
        raise _damaged(name, "arrow", error) from error


def csv_rows(stream: BinaryIO, name: str) -> Iterator[Found]:
    """Yield the rows of a csv or tsv file with a header; the number is the line where the row ends."""
    text = io.TextIOWrapper(stream, encoding="utf-8-sig", newline="")
    try:
        header = _header(text)
        tabs = name.lower().endswith(".tsv") or ("\t" in header and "," not in header)
        delimiter = "\t" if tabs else ";" if ";" in header and "," not in header else ","
        names = next(csv.reader([header], delimiter=delimiter, strict=True), [])
        _check_header(names, name)
        rows = csv.reader(text, delimiter=delimiter, strict=True)
        for cells in rows:
            if not cells:
                continue
            number = rows.line_num + 1
            if len(cells) != len(names):
                yield number, None, f"{len(cells)} fields where the header has {len(names)}"
            else:
                yield number, dict(zip(names, cells, strict=True)), None
    except csv.Error as error:
        raise DataError(
            "Unparsable", f"{name} is not valid csv: {error}.", fix="Quote the field that holds it."
        ) from error
    except UnicodeDecodeError as error:
        raise DataError("Unparsable", f"{name} is not valid UTF-8.", fix="Save it as UTF-8.") from error
    finally:
        text.detach()


def _header(text: io.TextIOWrapper) -> str:
    """Return the first record, which a quoted line break may spread over several lines."""
    header = text.readline()
    while header.count('"') % 2 and (more := text.readline()):
        header += more
    return header


def _check_header(names: list[str], name: str) -> None:
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice or not all(n.strip() for n in names):
        what = f"names {', '.join(twice)} twice" if twice else "has a column without a name"
        raise DataError("HeaderInvalid", f"The header of {name} {what}.", fix="Give every column its own name.")


def _damaged(name: str, kind: str, error: Exception) -> DataError:
    return DataError("Unparsable", f"{name} is a damaged {kind} file: {error}.", fix="Download or write it again.")
