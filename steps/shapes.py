"""What do the columns of a row mean?  Every known shape becomes a conversation, each for a stated reason.

The shape is told once, from the columns of a file, and holds for all its rows. Columns that the training
config names win; where two readings are possible neither is taken.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from presets.errors import DataError
from presets.recipe import DataRecipe
from steps.messages import ROLES, TEXT_ROLE, Conversation, Message

Values = Mapping[str, Any]
PAIRS = (
    ("prompt", "completion"), ("prompt", "response"), ("question", "answer"), ("question", "response"),
    ("query", "response"), ("input", "output"),
)  # fmt: skip
CONTEXTS = ("context", "passage")  # columns that stand before a question
QUESTIONS = ("prompt", "question", "instruction", "query", "input", "context")
_ROLE_NAMES = {
    "human": "user", "user": "user", "gpt": "assistant", "chatgpt": "assistant", "bot": "assistant",
    "model": "assistant", "assistant": "assistant", "system": "system", "developer": "system", "tool": "tool",
    "function": "tool", "observation": "tool", "function_response": "tool",
}  # fmt: skip


class RowError(Exception):
    """A row that cannot be trained on; the text says why."""


@dataclass(frozen=True, slots=True)
class Shape:
    """A way to read rows, with the reason why it was chosen."""

    name: str
    reason: str
    columns: tuple[str, ...]  # what it reads; other columns are ignored, and that is told
    read: Callable[[Values], Conversation]


def choose_shape(columns: Sequence[str], data: DataRecipe) -> Shape:
    """Return how to read rows that have these columns.

    Raises:
        DataError: a named column is missing, no known shape fits, or more than one does.
    """
    for column in (data.messages_column, data.context_column, data.response_column):
        if column and column not in columns:
            raise DataError(
                "ColumnMissing",
                f"The training config names the column {column!r}; the dataset has {', '.join(columns)}.",
                fix="Correct DatasetConfig.",
            )
    if data.messages_column:
        return _messages(data.messages_column, "DatasetConfig names messages_column")
    if data.response_column:
        question = data.context_column or _question_beside(data.response_column, columns)
        return _pair("columns", question, data.response_column, (), "DatasetConfig names response_column")
    return _detect(columns)


def _detect(columns: Sequence[str]) -> Shape:
    found = list(_readings(columns))
    if len(found) == 1:
        return found[0]
    if found:
        readings = " or ".join(f"as {shape.name} ({shape.reason})" for shape in found)
        raise DataError(
            "ShapeAmbiguous",
            f"The rows can be read {readings}.",
            fix="Say which: DatasetConfig.messages_column, or context_column and response_column.",
        )
    if "text" in columns:
        return Shape("text", "there is a column text and nothing that is a question", ("text",), _plain_text)
    raise DataError(
        "ShapeUnknown",
        f"The columns {', '.join(columns)} match no known shape.",
        fix="Name them in the training config: DatasetConfig: {context_column: ..., response_column: ...}.",
    )


def _readings(columns: Sequence[str]) -> Iterator[Shape]:
    present = set(columns)
    for name in ("messages", "conversations", "conversation"):
        if name in present:
            yield _messages(name, f"there is a column {name}")
    if "instruction" in present:
        for answer in ("output", "response"):
            if answer in present:
                yield _instruction(answer)
    for question, answer in PAIRS:
        covered = question == "input" and "instruction" in present  # Alpaca's input belongs to its instruction
        if {question, answer} <= present and not covered:
            reason = f"there are columns {question} and {answer}"
            yield _pair(f"{question}/{answer}", question, answer, CONTEXTS, reason)


def _question_beside(response: str, columns: Sequence[str]) -> str:
    others = [column for column in columns if column != response]
    for name in QUESTIONS:
        if name in others:
            return name
    if len(others) == 1:
        return others[0]
    raise DataError(
        "ColumnMissing",
        f"Which of {', '.join(others)} holds the question?" if others else "There is no column for the question.",
        fix="Name it: DatasetConfig.context_column.",
    )


def _messages(column: str, reason: str) -> Shape:
    def read(row: Values) -> Conversation:
        turns = row.get(column)
        if type(turns) is list and "tools" not in row:  # most rows; what follows is dearer
            return Conversation([_message(turn) for turn in turns])
        turns = _parsed(turns)
        if isinstance(turns, dict):  # {"role": [...], "content": [...]}: a list of structs as some writers turn it
            turns = [dict(zip(turns, values, strict=False)) for values in zip(*turns.values(), strict=False)]
        if not isinstance(turns, list | tuple):
            raise RowError(f"{column} is not a list of messages")
        tools = _parsed(row.get("tools"))
        if tools is not None and not isinstance(tools, list):
            raise RowError("tools is not a list")
        return Conversation([_message(turn) for turn in turns], _without_nulls(tools) or None)

    return Shape(column, reason, (column, "tools"), read)


def _parsed(value: Any) -> Any:  # noqa: ANN401  (JSON in a text cell, as csv needs it)
    if not isinstance(value, str) or value.lstrip()[:1] not in ("[", "{"):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError) as error:
        raise RowError(f"a cell is not valid JSON: {error}") from error


def _message(turn: object) -> Message:
    if type(turn) is dict and len(turn) == 2 and turn.get("role") in ROLES and type(turn.get("content")) is str:
        return turn  # what most datasets hold, and costs nothing
    if not isinstance(turn, Mapping):
        raise RowError("a message is not an object")
    said = "role" if turn.get("role") is not None else "from"
    role = _ROLE_NAMES.get(str(turn.get(said)))
    if role is None:
        raise RowError(f"a message has the role {turn.get(said)!r}, not one of {', '.join(ROLES)}")
    calls = _without_nulls(_parsed(turn.get("tool_calls")))
    message: Message = {"role": role, "content": _content(turn, bool(calls))}
    if calls:
        message["tool_calls"] = calls
    for key in ("name", "tool_call_id"):
        if isinstance(turn.get(key), str):
            message[key] = turn[key]
    return message


def _content(turn: Mapping[str, Any], calls: bool) -> str:
    content = turn.get("content", turn.get("value"))
    if content is None and "value" in turn:
        content = turn["value"]
    if content is None and calls:
        return ""
    if isinstance(content, list):  # OpenAI's parts
        texts = [part.get("text") for part in content if isinstance(part, Mapping) and part.get("type") == "text"]
        if len(texts) != len(content) or not all(isinstance(text, str) for text in texts):
            raise RowError("the content of a message has parts that are not text")
        return "".join(str(text) for text in texts)
    if not isinstance(content, str):
        raise RowError(f"the content of a message is {_kind(content)}, not text")
    return content


def _instruction(answer: str) -> Shape:
    def read(row: Values) -> Conversation:
        question = _text(row.get("instruction"), "instruction")
        after = _first_text(row, ("input", *CONTEXTS))
        system = _first_text(row, ("system",))
        head = [{"role": "system", "content": system}] if system else []
        asked = f"{question}\n\n{after}" if after else question
        return Conversation([*head, *_turns(asked, _text(row.get(answer), answer))])

    used = ("instruction", "input", *CONTEXTS, answer, "system")
    return Shape(f"instruction/{answer}", f"there are columns instruction and {answer}", used, read)


def _pair(name: str, question: str, answer: str, contexts: tuple[str, ...], reason: str) -> Shape:
    def read(row: Values) -> Conversation:
        asked, said = _parsed(row.get(question)), _parsed(row.get(answer))
        if _is_messages(asked) and _is_messages(said):  # TRL's conversational prompt and completion
            return Conversation([_message(turn) for turn in [*asked, *said]])
        text = _text(row.get(question), question)
        before = _first_text(row, contexts)
        return Conversation(_turns(f"{before}\n\n{text}" if before else text, _text(row.get(answer), answer)))

    return Shape(name, reason, (question, *contexts, answer), read)


def _first_text(row: Values, columns: Sequence[str]) -> str | None:
    """Return the first of the columns that holds text; what a row lacks, another may have."""
    return next((v for c in columns if isinstance(v := row.get(c), str) and v.strip()), None)


def _is_messages(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(v, Mapping) and "role" in v for v in value)


def _turns(question: str, answer: str) -> list[Message]:
    if not question.strip():
        raise RowError("the question is empty")
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def _plain_text(row: Values) -> Conversation:
    return Conversation([{"role": TEXT_ROLE, "content": _text(row.get("text"), "text")}])


def _text(value: object, column: str) -> str:
    """Return the text of a cell; a list of accepted answers stands for its first, SQuAD's dict for its text."""
    if isinstance(value, Mapping) and "text" in value:
        value = value["text"]
    if isinstance(value, list):
        value = value[0] if value else None
    if isinstance(value, int | float) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str):
        raise RowError(f"{column} is {'empty' if value is None else _kind(value)}, not text")
    return value


def _kind(value: object) -> str:
    return "missing" if value is None else type(value).__name__


def _without_nulls(value: Any) -> Any:  # noqa: ANN401
    """Return the value less the nulls that columnar formats put where a key is missing."""
    if isinstance(value, Mapping):
        return {key: _without_nulls(inner) for key, inner in value.items() if inner is not None}
    if isinstance(value, list | tuple):
        return [_without_nulls(inner) for inner in value]
    return value
