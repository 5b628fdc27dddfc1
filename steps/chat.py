"""Rows as the model reads them: the chat template rendered, tokenised, and marked where the loss is taken.

The loss is taken on the assistant's tokens, the end token included and nothing behind it: a model that never
sees its end token supervised never learns to stop (what happens wherever pad == eos masks it).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

from presets.errors import DataError
from steps.messages import Conversation, Message

IGNORED = -100


class Tokenizer(Protocol):
    """What is used of a Hugging Face fast tokenizer."""

    eos_token: str | None
    eos_token_id: int | None
    all_special_ids: list[int]

    def apply_chat_template(self, conversation: Sequence[Message], **options: Any) -> Any:  # noqa: ANN401
        """Render the messages."""

    def __call__(self, text: str | Sequence[str], **options: Any) -> Any:  # noqa: ANN401
        """Tokenise."""

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of tokens."""
        ...

    def __hash__(self) -> int:
        """Tell tokenizers apart: what is known of one is remembered."""
        ...


@dataclass(frozen=True, slots=True)
class Encoded:
    """One row: token ids, and labels of the same length (``IGNORED`` where no loss is taken)."""

    ids: tuple[int, ...]
    labels: tuple[int, ...]

    @property
    def supervised(self) -> int:
        """Number of tokens that the loss is taken on; the first token of a row never counts."""
        return sum(label != IGNORED for label in self.labels[1:])


def encode(tokenizer: Tokenizer, row: Conversation, *, assistant_only: bool, max_tokens: int) -> Encoded:
    """Render and tokenise one row, cut at ``max_tokens``; plain text is learned whole."""
    text = render_row(tokenizer, row)
    whole = not assistant_only or row.is_text
    spans = [(0, len(text.rstrip()))] if whole else answer_spans(tokenizer, row, text)
    tokens = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    ids = list(tokens["input_ids"])
    inside = [any(start < e and end > s for s, e in spans) and end > start for start, end in tokens["offset_mapping"]]
    labels = [token if use else IGNORED for token, use in zip(ids, inside, strict=True)]
    _end_with_stop(tokenizer, ids, labels)
    return Encoded(tuple(ids[:max_tokens]), tuple(labels[:max_tokens]))


def render_row(tokenizer: Tokenizer, row: Conversation) -> str:
    """Return the text of a row: its conversation through the chat template, or its plain text as it stands."""
    return str(row.messages[0]["content"]) if row.is_text else render(tokenizer, row.messages, row.tools)


def render(
    tokenizer: Tokenizer, messages: Sequence[Message], tools: Sequence[Any] | None = None, *, generate: bool = False
) -> str:
    """Return the text that the chat template makes of the messages.

    Raises:
        DataError: the template refuses them.
    """
    options: dict[str, Any] = {"tools": list(tools)} if tools else {}
    try:
        text: str = tokenizer.apply_chat_template(
            list(messages), tokenize=False, add_generation_prompt=generate, **options
        )
    except Exception as error:  # jinja2's own errors, and whatever a template raises
        raise DataError(
            "TemplateRefused",
            f"The model's chat template refuses a row: {error}.",
            fix="Mend the row's roles, or set ModelConfig.chat_template.",
        ) from error
    return text


def answer_spans(tokenizer: Tokenizer, row: Conversation, text: str) -> list[tuple[int, int]]:
    """Return the character spans of the assistant's turns in ``text``, each with its end token."""
    marks = _special_texts(tokenizer)
    spans = []
    for index, message in enumerate(row.messages):
        if message["role"] != "assistant":
            continue
        before = _common_prefix(text, render(tokenizer, row.messages[:index], row.tools, generate=True))
        through = _common_prefix(text, render(tokenizer, row.messages[: index + 1], row.tools))
        start = before if message["content"].strip() in text[before:through] else _find(text, message, before)
        spans.append((start, _end(text, message, start, through, marks)))
    return spans


def _end(text: str, message: Message, start: int, through: int, marks: Sequence[str]) -> int:
    """Return where the turn ends: behind the first special token that follows the answer, where there is one.

    A template may write more at the end of a conversation than between its turns (Phi-3: its end-of-text token), so
    that what a conversation that stops here shares with the whole one reaches into the next turn.
    """
    content = str(message["content"]).strip()
    found = text.find(content, start, through)
    behind = found + len(content) if found >= 0 else start
    ends = [(place, place + len(mark)) for mark in marks if (place := text.find(mark, behind, through)) >= 0]
    return min(ends)[1] if ends else start + len(text[start:through].rstrip())


@lru_cache(maxsize=8)
def _special_ids(tokenizer: Tokenizer) -> frozenset[int]:
    """Return the tokens that are marked as special: those that have a role, and others, as ``<|end|>`` may be."""
    added = getattr(tokenizer, "added_tokens_decoder", {})
    return frozenset([*tokenizer.all_special_ids, *(number for number, token in added.items() if token.special)])


@lru_cache(maxsize=8)
def _special_texts(tokenizer: Tokenizer) -> tuple[str, ...]:
    return tuple(tokenizer.decode([number]) for number in sorted(_special_ids(tokenizer)))


def _find(text: str, message: Message, near: int) -> int:
    """Templates that open a block in the generation prompt alone (<think>) share less than the prompt."""
    content = str(message["content"])
    start = text.find(content.strip(), max(0, near - len(content)))
    return start if start >= 0 else near


def _common_prefix(text: str, other: str) -> int:
    if text.startswith(other):
        return len(other)
    return next((i for i, (a, b) in enumerate(zip(text, other, strict=False)) if a != b), min(len(text), len(other)))


def _end_with_stop(tokenizer: Tokenizer, ids: list[int], labels: list[int]) -> None:
    """Supervise an end token also where the template writes none."""
    if tokenizer.eos_token_id is None:
        return
    last = next((i for i in range(len(ids) - 1, -1, -1) if labels[i] != IGNORED), None)
    if last is not None and ids[last] not in _special_ids(tokenizer):
        del ids[last + 1 :], labels[last + 1 :]
        ids.append(tokenizer.eos_token_id)
        labels.append(tokenizer.eos_token_id)
