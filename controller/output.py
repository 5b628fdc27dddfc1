"""Data on standard output, words on standard error: tables, JSON, YAML."""

import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Any

import yaml


class Format(StrEnum):
    """What ``-o`` takes."""

    TABLE = "table"
    WIDE = "wide"
    JSON = "json"
    YAML = "yaml"


def say(*lines: str) -> None:
    """Print words for people."""
    for line in lines:
        print(line, file=sys.stderr)  # noqa: T201


def write(text: str) -> None:
    """Print data."""
    print(text)  # noqa: T201


def write_data(body: Any, form: Format) -> None:  # noqa: ANN401  (any JSON value)
    """Print ``body`` as JSON or YAML."""
    if form is Format.JSON:
        write(json.dumps(body, indent=2, default=str, ensure_ascii=False))
    else:
        write(yaml_text(body))


def yaml_text(body: Any) -> str:  # noqa: ANN401
    """Return ``body`` as YAML, keys in their order, lines as long as they are."""
    plain = json.loads(json.dumps(body, default=str))  # no anchors, no tuples
    return yaml.dump(plain, Dumper=yaml.SafeDumper, sort_keys=False, width=10**6, allow_unicode=True).rstrip()


def write_table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print columns as kubectl does."""
    for line in table_lines(headers, rows):
        write(line)


def table_lines(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return columns as kubectl prints them: left, three spaces apart, no rules."""
    lines = [list(headers), *[[cell or "-" for cell in row] for row in rows]]
    widths = [max(len(line[i]) for line in lines) for i in range(len(headers))]
    return ["   ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]


def colours() -> bool:
    """Whether words may be coloured: on a terminal, and NO_COLOR is not set."""
    return sys.stderr.isatty() and not os.environ.get("NO_COLOR")


def condition(workspace: Mapping[str, Any], kind: str) -> Mapping[str, Any]:
    """Return a condition of a Workspace, empty when it is not there."""
    found = [c for c in workspace.get("status", {}).get("conditions", ()) if c["type"] == kind]
    return found[0] if found else {}
