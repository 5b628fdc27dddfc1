"""What do the columns of a row mean?  Every known shape becomes one list of ``{role, content}`` messages.

The shape is told once, from the first row of a dataset, and holds for all rows; columns that the training
config names win over what would be detected.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from presets.errors import DataError
from presets.recipe import DataRecipe

Message = dict[str, str]
ROLES = ("system", "user", "assistant")
_SHAREGPT_ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}


class RowError(Exception):
    """A row that cannot be trained on; the text says why."""


@dataclass(frozen=True, slots=True)
class Shape:
    """A way to read rows, with the reason why it was chosen."""

    name: str
    reason: str
    to_messages: Callable[[dict[str, Any]], list[Message]]


def choose_shape(columns: Sequence[str], data: DataRecipe) -> Shape:
    """Return how to read rows that have these columns.

    Raises:
        DataError: a named column is missing, or no known shape fits.
    """
    named = [c for c in (data.messages_column, data.context_column, data.response_column) if c]
    for column in named:
        if column not in columns:
            raise DataError(
                "ColumnMissing",
                f"The training config names the column {column!r}; the dataset has {', '.join(columns)}.",
                fix="Correct DatasetConfig.",
            )
    if data.messages_column:
        return Shape("messages", "DatasetConfig names messages_column", _messages_in(data.messages_column))
    if data.response_column:
        why = "DatasetConfig names response_column"
        return Shape(
            "columns",
            why,
            _pair(data.context_column or _context_beside(data.response_column, columns), data.response_column),
        )
    return _detect(columns)


def _detect(columns: Sequence[str]) -> Shape:
    present = set(columns)
    if "messages" in present:
        return Shape("messages", "there is a column messages", _messages_in("messages"))
    if "conversations" in present:
        return Shape("conversations", "there is a column conversations (ShareGPT)", _conversations)
    if {"instruction", "output"} <= present:
        return Shape("instruction", "there are columns instruction and output (Alpaca)", _instruction)
    for question, answer in (("prompt", "completion"), ("prompt", "response"), ("question", "answer")):
        if {question, answer} <= present:
            return Shape(f"{question}/{answer}", f"there are columns {question} and {answer}", _pair(question, answer))
    raise DataError(
        "ShapeUnknown",
        f"The columns {', '.join(columns)} match no known shape.",
        fix="Name them in the training config: DatasetConfig: {context_column: ..., response_column: ...}.",
    )


def _context_beside(response: str, columns: Sequence[str]) -> str:
    others = [column for column in columns if column != response]
    for name in ("prompt", "question", "instruction", "input", "context"):
        if name in others:
            return name
    if len(others) == 1:
        return others[0]
    raise DataError(
        "ColumnMissing",
        f"Which of {', '.join(others)} holds the question?",
        fix="Name it: DatasetConfig.context_column.",
    )


def _messages_in(column: str) -> Callable[[dict[str, Any]], list[Message]]:
    def to_messages(row: dict[str, Any]) -> list[Message]:
        value = row.get(column)
        turns = json.loads(value) if isinstance(value, str) and value.lstrip().startswith("[") else value
        if not isinstance(turns, list):
            raise RowError(f"{column} is not a list of messages")
        return [_message(turn, "role", "content") for turn in turns]

    return to_messages


def _conversations(row: dict[str, Any]) -> list[Message]:
    turns = row.get("conversations")
    if not isinstance(turns, list):
        raise RowError("conversations is not a list")
    return [
        _message(turn, "role", "content") if "role" in turn else _message(turn, "from", "value")
        for turn in turns
        if isinstance(turn, dict)
    ]


def _message(turn: object, role_key: str, content_key: str) -> Message:
    if not isinstance(turn, dict):
        raise RowError("a message is not an object")
    role = _SHAREGPT_ROLES.get(str(turn.get(role_key)))
    content = turn.get(content_key)
    if role is None:
        raise RowError(f"a message has the role {turn.get(role_key)!r}, not one of {', '.join(ROLES)}")
    if not isinstance(content, str):
        raise RowError(f"the content of a message is {type(content).__name__}, not text")
    return {"role": role, "content": content}


def _instruction(row: dict[str, Any]) -> list[Message]:
    question = _text(row.get("instruction"), "instruction")
    context = row.get("input")
    if isinstance(context, str) and context.strip():
        question = f"{question}\n\n{context}"
    return [{"role": "user", "content": question}, {"role": "assistant", "content": _text(row.get("output"), "output")}]


def _pair(question: str, answer: str) -> Callable[[dict[str, Any]], list[Message]]:
    def to_messages(row: dict[str, Any]) -> list[Message]:
        return [
            {"role": "user", "content": _text(row.get(question), question)},
            {"role": "assistant", "content": _text(row.get(answer), answer)},
        ]

    return to_messages


def _text(value: object, column: str) -> str:
    """Return the text of a cell; a list of accepted answers stands for its first."""
    if isinstance(value, list):
        value = value[0] if value else None
    if isinstance(value, int | float) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str):
        raise RowError(f"{column} is {'empty' if value is None else type(value).__name__}, not text")
    return value


def check_turns(messages: Sequence[Message]) -> str | None:
    """Return why these messages cannot be trained on, or None when they can.

    They must be: an optional system turn, then user and assistant in turn, ending with a non-empty assistant.
    """
    roles = [message["role"] for message in messages]
    turns = roles[1:] if roles[:1] == ["system"] else roles
    if "assistant" not in turns:
        return "there is no assistant turn"
    if turns[-1] != "assistant":
        return "the last turn is not the assistant's"
    if any(role != ("user", "assistant")[index % 2] for index, role in enumerate(turns)):
        return f"the roles are out of order ({', '.join(roles)})"
    if any(not m["content"].strip() for m in messages if m["role"] == "assistant"):
        return "an assistant turn is empty"
    return None
