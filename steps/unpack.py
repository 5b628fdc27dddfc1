"""Compressed files read as if they were not: gzip and zstandard, told by their first bytes.

What is read is a stream; formats that must be read back and forth get a plain copy.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

import pyarrow as pa

from presets.errors import DataError

MAGIC = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}
SUFFIXES = (".gz", ".gzip", ".zst", ".zstd")
BUFFER_BYTES = 1 << 20


def compression(path: Path) -> str | None:
    """Return the name of the compression that the file's first bytes tell, None when it is plain."""
    with path.open("rb") as reader:
        head = reader.read(4)
    return next((name for magic, name in MAGIC.items() if head.startswith(magic)), None)


def inner_name(path: Path) -> str:
    """Return the file name without the ending of its compression."""
    return path.name.removesuffix(path.suffix) if path.suffix.lower() in SUFFIXES else path.name


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """Open the file's content as a stream of plain bytes.

    Raises:
        DataError: the compressed data is damaged.
    """
    kind = compression(path)
    if kind is None:
        with path.open("rb") as reader:
            yield reader
        return
    try:
        with pa.CompressedInputStream(pa.OSFile(str(path)), kind) as stream:
            # The C++ stream answers single reads; Python's buffer makes lines of them.
            import io

            yield cast("BinaryIO", io.BufferedReader(cast("io.RawIOBase", stream), BUFFER_BYTES))
    except (OSError, pa.ArrowException) as error:
        raise DataError(
            "Unparsable", f"{path.name} is a damaged {kind} file: {error}.", fix="Download or write it again."
        ) from error


@contextmanager
def seekable(path: Path, scratch: Path) -> Iterator[Path]:
    """Yield a path to the plain content: the file itself, or a copy in ``scratch`` that is removed again."""
    if compression(path) is None:
        yield path
        return
    scratch.mkdir(parents=True, exist_ok=True)
    plain = scratch / f".plain-{inner_name(path)}"
    try:
        with opened(path) as reader, plain.open("wb") as writer:
            shutil.copyfileobj(reader, writer, BUFFER_BYTES)
        yield plain
    finally:
        plain.unlink(missing_ok=True)
