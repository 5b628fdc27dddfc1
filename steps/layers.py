"""The layers of an image laid over one another in a folder, as a container runtime does it, whiteouts included.

What would lie outside the folder, and links and devices among the data, are refused: a dataset needs none.
"""

import tarfile
from pathlib import Path, PurePosixPath
from typing import Self

from presets.errors import DataError
from steps.limits import check_size
from steps.unpack import opened

DATA_FOLDER = "data"
WHITEOUT, OPAQUE = ".wh.", ".wh..wh..opq"
CHUNK_BYTES = 1 << 20
LONGEST_NAME_BYTES, LONGEST_PATH = 255, 900
HEADER_BYTES, MOST_HEADER_BYTES = 512, 1 << 20  # of an entry; of what says more about one
MORE_HEADERS = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)


class Room:
    """Counts what comes out of the layers: a small blob may unpack to any size."""

    def __init__(self, max_bytes: int, shown: str) -> None:
        self._taken, self._max, self._shown = 0, max_bytes, f"What {shown} unpacks to"

    def take(self, size_bytes: int) -> None:
        """Count so many bytes more.

        Raises:
            DataError: they are too many.
        """
        self._taken += size_bytes
        check_size(self._shown, self._taken, self._max)


class _Entry(tarfile.TarInfo):
    """An entry whose header is believed only where its size can be: tarfile seeks back, or reads, by what it says."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        """Read a header.

        Raises:
            tarfile.ReadError: a size below zero (CVE-2025-8194), or further headers of more than 1 MiB.
        """
        entry = super().frombuf(buf, encoding, errors)
        if entry.size < 0 or (entry.type in MORE_HEADERS and entry.size > MOST_HEADER_BYTES):
            raise tarfile.ReadError(f"an entry of {entry.size} bytes")
        return entry


def lay_over(layer: Path, root: Path, shown: str, room: Room) -> None:
    """Lay the files of a tar, plain or compressed, over what is in ``root``.

    Raises:
        DataError: it is damaged, an entry leads out of ``root``, or is a link or a device among the data.
    """
    try:
        with opened(layer) as stream, tarfile.open(fileobj=stream, mode="r|", tarinfo=_Entry) as archive:
            for entry in archive:
                _add_entry(archive, entry, root, shown, room)
    except (tarfile.TarError, EOFError, ValueError) as error:  # ValueError: numbers that are none, in its header
        raise DataError("ImageInvalid", f"A layer of {shown} is damaged: {error}.", fix="Push it again.") from error


def _add_entry(archive: tarfile.TarFile, entry: tarfile.TarInfo, root: Path, shown: str, room: Room) -> None:
    path = root / inside(entry.name, shown, empty=not entry.isfile())
    if entry.size < 0:
        raise tarfile.ReadError(f"an entry of {entry.size} bytes")
    room.take(HEADER_BYTES + entry.size)  # of every kind: it is skipped over by reading, and headers are bytes too
    if path.name == OPAQUE:
        _remove_below(path.parent)
    elif path.name.startswith(WHITEOUT):
        gone = path.parent / inside(path.name.removeprefix(WHITEOUT), shown, empty=False)
        _require_folders(gone, shown)
        _remove(gone)
    elif entry.isdir():
        _make_room(path, shown, folder=True)
        path.mkdir(parents=True, exist_ok=True)
    elif entry.isfile():
        _make_room(path, shown, folder=False)
        path.parent.mkdir(parents=True, exist_ok=True)
        source = archive.extractfile(entry)
        if source is not None:
            with path.open("wb") as writer:
                while chunk := source.read(CHUNK_BYTES):
                    writer.write(chunk)
    elif (
        PurePosixPath(entry.name).parts[:1] in ((DATA_FOLDER,), (".",))
        and DATA_FOLDER in PurePosixPath(entry.name).parts[:2]
    ):
        raise DataError(
            "ImageInvalid", f"{shown}: {entry.name} is a link or a device.", fix="Copy the file itself into the image."
        )


def inside(name: str, shown: str, *, empty: bool = True) -> PurePosixPath:
    """Return the name as a path below the image's root; ``.`` where it is that root and ``empty`` names may be.

    Raises:
        DataError: it leads out, or is no name for a file.
    """
    path = PurePosixPath(name.lstrip("/"))
    if not path.parts and empty and name.strip("./") == "" and ".." not in name:
        return PurePosixPath(".")
    wrong = ".." in path.parts or "\0" in name or not path.parts or len(name) > LONGEST_PATH
    if wrong or any(len(part.encode(errors="surrogateescape")) > LONGEST_NAME_BYTES for part in path.parts):
        raise DataError("ImageInvalid", f"{shown}: {name!r} leads out of the image.", fix="Build the image again.")
    return path


def _make_room(path: Path, shown: str, *, folder: bool) -> None:
    """Take away what is in the way: an upper layer may have a file where a lower one has a folder."""
    _require_folders(path, shown)
    if path.exists() and path.is_file() == folder:
        _remove(path)


def _require_folders(path: Path, shown: str) -> None:
    """Return when nothing above the path is a file.

    Raises:
        DataError: something is.
    """
    if any(parent.is_file() for parent in path.parents):
        raise DataError("ImageInvalid", f"{shown}: {path.name!r} lies below a file.", fix="Build the image again.")


def _remove(path: Path) -> None:
    if path.is_dir():
        _remove_below(path)
        path.rmdir()
    else:
        path.unlink(missing_ok=True)


def _remove_below(folder: Path) -> None:
    for path in sorted(folder.rglob("*"), reverse=True) if folder.is_dir() else ():
        path.rmdir() if path.is_dir() else path.unlink()
