"""Rows of a file, one after the other, each with its number: parquet, arrow, json, jsonl, csv, compressed or not.

The format is told from the content, then from the name. Memory does not grow with the file.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from presets.errors import DataError
from steps import json_rows, table_rows
from steps.json_rows import Found
from steps.unpack import inner_name, opened, seekable

Format = Literal["parquet", "arrow", "arrow-stream", "json", "jsonl", "csv"]
TABLES = (".csv", ".tsv")
HEAD_BYTES = 65536
STREAM_MARK = b"\xff\xff\xff\xff"


@dataclass(frozen=True, slots=True)
class Row:
    """One record: its number as the format counts, its values, or why it has none."""

    number: int  # a line for text formats, else a row; from 1
    values: dict[str, Any]
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class RowFile:
    """A file whose format is known."""

    path: Path
    name: str
    format: Format

    def place(self, number: int) -> str:
        """Return how to name a row: ``train.jsonl line 7``, ``train.parquet row 7``."""
        return f"{self.name} {'line' if self.format in ('jsonl', 'csv') else 'row'} {number}"

    def rows(self, scratch: Path) -> Iterator[Row]:
        """Yield the rows; ``scratch`` takes a plain copy where the format needs one.

        Raises:
            DataError: the file as a whole cannot be read.
        """
        for number, values, problem in self._found(scratch):
            if problem is None and not isinstance(values, dict):
                problem = f"not an object but {type(values).__name__}"
            yield Row(number, values if problem is None else {}, problem)

    def _found(self, scratch: Path) -> Iterator[Found]:
        if self.format in ("json", "jsonl", "csv"):
            with opened(self.path) as stream:
                if self.format == "json":
                    yield from json_rows.elements(stream, self.name)
                elif self.format == "jsonl":
                    yield from json_rows.lines(stream)
                else:
                    yield from table_rows.csv_rows(stream, inner_name(Path(self.name)))
            return
        with seekable(self.path, scratch) as plain:
            if self.format == "parquet":
                yield from table_rows.parquet_rows(plain, self.name)
            else:
                yield from table_rows.arrow_rows(plain, self.name, stream=self.format == "arrow-stream")


def open_rows(path: Path, name: str | None = None) -> RowFile:
    """Return the file with its format.

    Raises:
        DataError: it is none that can be read.
    """
    shown = name or path.name
    with opened(path) as reader:
        head = reader.read(HEAD_BYTES)
    found = _detect(head, Path(inner_name(Path(shown))).suffix.lower())
    if found is not None:
        return RowFile(path, shown, found)
    if not head:
        raise DataError("DatasetEmpty", f"{shown} is empty.", fix="Name a file with at least two rows.")
    for mark, what in _FOREIGN.items():
        if head.lstrip()[: len(mark)].lower() == mark:
            raise DataError("FormatUnknown", f"{shown} is {what}, not a dataset.", fix=_FOREIGN_FIX)
    raise DataError(
        "FormatUnknown",
        f"{shown} is neither parquet, arrow, json, jsonl nor csv.",
        fix="Convert it, or give a csv file the ending .csv.",
    )


_FOREIGN = {
    b"<!doctype html": "a web page",
    b"<html": "a web page",
    b"<?xml": "an XML document",
    b"version https://git-lfs": "a Git LFS pointer",
    b"pk\x03\x04": "a zip archive",
    b"%pdf": "a PDF document",
    b"bzh": "a bzip2 file",
}
_FOREIGN_FIX = "Name the address of the file itself (on the Hugging Face hub: .../resolve/..., not .../blob/...)."


def _detect(head: bytes, suffix: str) -> Format | None:
    for mark, kind in _MARKS.items():
        if head.startswith(mark):
            return kind
    text = head.decode("utf-8", errors="replace").lstrip("\ufeff \t\r\n")
    if text.startswith("[") and suffix not in TABLES:
        return "json" if suffix != ".jsonl" else "jsonl"
    if text.startswith("{") and suffix not in TABLES:
        return "json" if suffix == ".json" and not _is_lines(text) else "jsonl"
    return "csv" if suffix in TABLES else None


_MARKS: dict[bytes, Format] = {b"PAR1": "parquet", b"ARROW1": "arrow", STREAM_MARK: "arrow-stream"}


def _is_lines(text: str) -> bool:
    """Whether a .json file holds an object a line, as many do."""
    first, _, rest = text.partition("\n")
    return first.rstrip().endswith("}") and rest.lstrip().startswith("{")
