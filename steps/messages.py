"""A row as everything behind the readers knows it: messages of a conversation, and the tools it may call."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

Message = dict[str, Any]  # role and content; tool_calls, name and tool_call_id where there are any
ROLES = ("system", "user", "assistant", "tool")
PLAIN_ROLES = {("user", "assistant"), ("system", "user", "assistant")}  # most rows; what follows is dearer
TEXT_ROLE = "text"  # a row that is no conversation: its text is learned as it stands


@dataclass(frozen=True, slots=True)
class Conversation:
    """One row."""

    messages: list[Message]
    tools: list[Any] | None = None

    @property
    def is_text(self) -> bool:
        """Whether the row is plain text rather than a conversation."""
        return bool(self.messages) and self.messages[0]["role"] == TEXT_ROLE


def check_turns(messages: Sequence[Message]) -> str | None:
    """Return why these messages cannot be trained on, or None when they can.

    They must be: an optional system turn, then user and assistant in turn, ending with an assistant that says
    something. A tool answers the assistant who called it, and the assistant goes on.
    """
    if len(messages) == 1 and messages[0]["role"] == TEXT_ROLE:
        return None if messages[0]["content"].strip() else "the text is empty"
    roles = tuple([message["role"] for message in messages])
    if roles in PLAIN_ROLES and all(m["content"].strip() for m in messages if m["role"] == "assistant"):
        return None
    turns = messages[1:] if roles[:1] == ("system",) else messages
    if not any(m["role"] == "assistant" for m in turns):
        return "there is no assistant turn"
    if turns[-1]["role"] != "assistant":
        return "the last turn is not the assistant's"
    if not _in_order(turns):
        return f"the roles are out of order ({', '.join(roles)})"
    if any(not _says_something(m) for m in turns if m["role"] == "assistant"):
        return "an assistant turn is empty"
    return None


def _in_order(turns: Sequence[Message]) -> bool:
    """Who may follow whom: user after assistant, assistant after user or tool, tool after a call or a tool."""
    before: Message = {"role": "assistant"}
    for turn in turns:
        role, last = turn["role"], before["role"]
        allowed = {
            "user": last == "assistant" and not before.get("tool_calls"),
            "assistant": last in ("user", "tool"),
            "tool": last == "tool" or bool(before.get("tool_calls")),
        }
        if not allowed.get(role, False):
            return False
        before = turn
    return True


def _says_something(message: Message) -> bool:
    return bool(message["content"].strip() or message.get("tool_calls"))
