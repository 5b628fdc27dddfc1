"""Rows of a file, one after the other, each with its place: parquet, json, jsonl, csv.

Memory does not grow with the file (a JSON array excepted: it is read whole). The format is told from the
content, then from the name.
"""

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from presets.errors import DataError

Format = Literal["parquet", "json", "jsonl", "csv"]
BATCH_ROWS = 1024
csv.field_size_limit(1 << 24)


@dataclass(frozen=True, slots=True)
class Row:
    """One record and where it stands."""

    values: dict[str, Any]
    place: str  # such as "train.jsonl line 7" or "train.parquet row 7", counted from 1


def detect(path: Path) -> Format:
    """Return the format of the file.

    Raises:
        DataError: it is none that can be read.
    """
    with path.open("rb") as reader:
        head = reader.read(4096)
    if head[:4] == b"PAR1":
        return "parquet"
    text = head.decode("utf-8", errors="replace").lstrip("\ufeff \t\r\n")
    if text.startswith("["):
        return "json"
    if text.startswith("{"):
        return "jsonl" if path.suffix != ".json" or "\n{" in text else "json"
    if path.suffix in (".csv", ".tsv"):
        return "csv"
    if not head:
        raise DataError("DatasetEmpty", f"{path.name} is empty.", fix="Name a file with at least two rows.")
    raise DataError(
        "FormatUnknown",
        f"{path.name} is neither parquet, json, jsonl nor csv.",
        fix="Convert it, or give a csv file the ending .csv.",
    )


def read(path: Path) -> Iterator[Row]:
    """Yield the rows of ``path``.

    Raises:
        DataError: a row cannot be parsed; the message names its line.
    """
    readers = {"parquet": _parquet, "json": _json, "jsonl": _jsonl, "csv": _csv}
    yield from readers[detect(path)](path)


def _parquet(path: Path) -> Iterator[Row]:
    try:
        number = 0
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=BATCH_ROWS):
                for values in batch.to_pylist():
                    number += 1
                    yield Row(values, f"{path.name} row {number}")
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            "Unparsable", f"{path.name} is a damaged parquet file: {error}.", fix="Download or write it again."
        ) from error


def _jsonl(path: Path) -> Iterator[Row]:
    with path.open("rb") as reader:
        for number, line in enumerate(reader, start=1):
            if line.strip():
                place = f"{path.name} line {number}"
                yield Row(_object(line.decode("utf-8-sig", errors="replace"), place), place)


def _json(path: Path) -> Iterator[Row]:
    try:
        body = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise DataError("Unparsable", f"{path.name} is not valid JSON: {error}.", fix="Mend the file.") from error
    if isinstance(body, dict):  # {"data": [...]} and its like: the one list inside
        lists = [value for value in body.values() if isinstance(value, list)]
        body = lists[0] if len(lists) == 1 else [body]
    for number, values in enumerate(body, start=1):
        place = f"{path.name} row {number}"
        if not isinstance(values, dict):
            raise _not_an_object(place)
        yield Row(values, place)


def _csv(path: Path) -> Iterator[Row]:
    with path.open(newline="", encoding="utf-8-sig", errors="replace") as reader:
        sample = reader.readline()
        reader.seek(0)
        rows = csv.DictReader(reader, delimiter="\t" if path.suffix == ".tsv" or "\t" in sample else ",", strict=True)
        try:
            for values in rows:
                place = f"{path.name} line {rows.line_num}"
                if None in values or None in values.values():
                    raise DataError(
                        "Unparsable", f"{place} has another number of fields than the header.", fix="Mend the line."
                    )
                yield Row(dict(values), place)
        except csv.Error as error:
            raise DataError(
                "Unparsable", f"{path.name} line {rows.line_num}: {error}.", fix="Quote the field that holds it."
            ) from error


def _object(line: str, place: str) -> dict[str, Any]:
    try:
        values = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError("Unparsable", f"{place} is not valid JSON: {error}.", fix="Mend or remove the line.") from error
    if not isinstance(values, dict):
        raise _not_an_object(place)
    return values


def _not_an_object(place: str) -> DataError:
    return DataError("Unparsable", f"{place} is not an object.", fix='Each row must be an object: {"messages": [...]}.')
