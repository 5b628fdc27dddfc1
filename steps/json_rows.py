"""Rows of JSON files, one after the other: lines, or a list however long, which is never read whole."""

import codecs
import json
from collections.abc import Iterator
from typing import Any, BinaryIO

import orjson

from presets.errors import DataError

CHUNK_BYTES = 1 << 20
LONGEST_ROW_CHARACTERS = 256 << 20
INEXACT = 2.0**63  # orjson gives larger integers as floats
WHITE = " \t\r\n"

Found = tuple[int, Any, str | None]  # number from 1, values, what is wrong


def lines(stream: BinaryIO) -> Iterator[Found]:
    """Yield the object of every line that is not blank."""
    for number, line in enumerate(stream, start=1):
        if line.isspace():
            continue
        try:
            yield number, _loaded(line, first=number == 1), None
        except UnicodeDecodeError as error:
            yield number, None, f"not valid UTF-8 (byte {error.start + 1} of the line)"
        except (ValueError, RecursionError) as error:
            yield number, None, f"not valid JSON: {error}"


def _loaded(line: bytes, *, first: bool) -> Any:  # noqa: ANN401
    """Return the value of a line as the standard library reads it, which is slower and takes and tells more."""
    try:
        value = orjson.loads(line)
        inexact = type(value) is dict and [v for v in value.values() if type(v) is float and abs(v) >= INEXACT]
        if not inexact:
            return value
    except orjson.JSONDecodeError:
        pass
    return json.loads(line.decode("utf-8-sig" if first else "utf-8"))


def elements(stream: BinaryIO, name: str) -> Iterator[Found]:
    """Yield the elements of the list that the document is, or of the one list of objects inside its object.

    Raises:
        DataError: the document cannot be parsed, or has several such lists.
    """
    scanner = _Scanner(stream, name)
    if scanner.peek() == "[":
        yield from scanner.elements()
        scanner.end()
        return
    found: list[str] = []
    number = 0
    fields: dict[str, Any] = {}
    for key in scanner.members():
        if scanner.peek() != "[":
            fields[key] = scanner.value()
            continue
        rows = scanner.elements()
        first = next(rows, None)
        if first is None or not isinstance(first[1], dict):
            fields[key] = [] if first is None else [first[1], *(value for _, value, _ in rows)]
            continue
        found.append(key)
        if len(found) > 1:
            raise DataError(
                "ShapeAmbiguous",
                f"{name} holds several lists of objects: {', '.join(found)}.",
                fix="Keep one of them in the file.",
            )
        yield first
        for row in rows:
            yield row
            number = row[0]
    if not found:
        yield number + 1, fields, None


class _Scanner:
    """Walks through a JSON text of any length with a window on it."""

    def __init__(self, stream: BinaryIO, name: str) -> None:
        self._stream, self._name = stream, name
        self._decoder = json.JSONDecoder()
        self._utf8 = codecs.getincrementaldecoder("utf-8-sig")()
        self._text, self._at, self._ended = "", 0, False
        self._passed = 0

    def peek(self) -> str:
        """Return the next character that is not white space, empty at the end."""
        while True:
            while self._at < len(self._text):
                if self._text[self._at] not in WHITE:
                    return self._text[self._at]
                self._at += 1
            if not self._more():
                return ""

    def members(self) -> Iterator[str]:
        """Yield the keys of an object; the value of each must be taken before the next."""
        self._take("{")
        while self.peek() != "}":
            key = self.value()
            if not isinstance(key, str):
                raise self._broken("a key is not a text")
            self._take(":")
            yield key
            self._separator("}")
        self._take("}")
        self.end()

    def end(self) -> None:
        """Return when nothing follows."""
        if self.peek():
            raise self._broken("something follows its end")

    def elements(self) -> Iterator[Found]:
        """Yield the elements of a list."""
        self._take("[")
        number = 0
        while self.peek() != "]":
            number += 1
            yield number, self.value(), None
            self._separator("]")
        self._take("]")

    def value(self) -> Any:  # noqa: ANN401
        """Return the next value."""
        self.peek()
        while True:
            try:
                value, end = self._decoder.raw_decode(self._text, self._at)
            except RecursionError as error:
                raise self._broken("it is nested too deeply") from error
            except ValueError as error:
                # A value that is cut by the window fails as one that is wrong does: more text tells.
                if not self._more(double=True):
                    raise self._broken(str(error)) from error
                continue
            if end == len(self._text) and not self._ended:  # a number may go on
                self._more()
                continue
            self._at = end
            return value

    def _separator(self, close: str) -> None:
        following = self.peek()
        if following == ",":
            self._at += 1
            if self.peek() == close:
                raise self._broken("a comma is followed by nothing")
        elif following != close:
            raise self._broken(f"',' or '{close}' is missing")

    def _take(self, expected: str) -> None:
        if self.peek() != expected:
            raise self._broken(f"{expected!r} is missing")
        self._at += 1

    def _more(self, *, double: bool = False) -> bool:
        if self._ended:
            return False
        kept = len(self._text) - self._at
        if kept > LONGEST_ROW_CHARACTERS:
            raise self._broken("a row is longer than 256 MiB")
        data = self._stream.read(max(CHUNK_BYTES, kept) if double else CHUNK_BYTES)
        self._ended = not data
        self._passed += self._at
        try:
            self._text = self._text[self._at :] + self._utf8.decode(data, final=self._ended)
        except UnicodeDecodeError as error:
            raise self._broken("it is not valid UTF-8") from error
        self._at = 0
        return not self._ended

    def _broken(self, why: str) -> DataError:
        where = f"near character {self._passed + self._at + 1}"
        return DataError("Unparsable", f"{self._name} is not valid JSON {where}: {why}.", fix="Mend the file.")
