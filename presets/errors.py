"""The errors of kaiflow: what went wrong, why in one stable word, and what to do about it.

One error, four faces: the same object becomes the line on the command line, the condition of a
Workspace (``reason`` and ``message``), the Event, and the exit code and termination message of a pod.

    KaiflowError
    ├── DataError          65  the data cannot be used
    ├── UnavailableError   69  something outside does not answer, and trying again soon is no use
    ├── TryAgainError      75  a passing fault: the engine retries the step
    ├── NotPermittedError  77  credentials are missing or refused
    ├── ConfigError        78  what was asked for cannot be done
    └── InvalidInput       78  the errors of one file, all of them
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from typing import ClassVar

# The remedy for what passes: true while a step is tried again, when its last try has failed, and of a command.
LATER = "If it does not pass, run it again later."


class KaiflowError(Exception):
    """A failure with a stable ``reason`` (CamelCase), a sentence for people, and the remedy."""

    exit_code: ClassVar[int] = 70  # EX_SOFTWARE of sysexits.h

    def __init__(self, reason: str, message: str, *, fix: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.fix = fix

    def __str__(self) -> str:
        return f"{self.message} {self.fix}".strip()

    def __reduce__(self) -> tuple[Callable[..., "KaiflowError"], tuple[object, ...]]:
        """Cross the border of a process whole: by default an exception is made anew of its message alone."""
        return _again, (type(self), self.args, self.__dict__)


def _again(kind: type[KaiflowError], args: tuple[object, ...], state: dict[str, object]) -> KaiflowError:
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(state)
    return error


class DataError(KaiflowError):
    """The data cannot be used as it is."""

    exit_code = 65


class UnavailableError(KaiflowError):
    """A service or a resource that the step needs is not there."""

    exit_code = 69


class TryAgainError(KaiflowError):
    """A passing fault; the same step may succeed when it runs again."""

    exit_code = 75


class NotPermittedError(KaiflowError):
    """Credentials are missing or refused."""

    exit_code = 77


class ConfigError(KaiflowError):
    """What was asked for cannot be done."""

    exit_code = 78


@dataclass(frozen=True, slots=True)
class FieldError:
    """One thing wrong with one field of a file."""

    field: str  # a path such as ``tuning.input.urls[0]``; empty when it is the file itself
    reason: str
    message: str
    fix: str

    def __str__(self) -> str:
        where = f"{self.field}: " if self.field else ""
        return f"{where}{self.message} {self.fix}".strip()


class InvalidInput(KaiflowError):
    """All errors of one input, raised once."""

    exit_code = 78

    def __init__(self, subject: str, errors: Iterable[FieldError]) -> None:
        self.subject = subject
        self.errors = tuple(errors)
        count = len(self.errors)
        super().__init__(
            "InvalidInput",
            f"{subject} has {count} error{'s' if count != 1 else ''}: " + "; ".join(e.message for e in self.errors),
            fix=self.errors[0].fix if count == 1 else "",
        )


def nearest(word: str, known: Iterable[str], limit: int = 3) -> list[str]:
    """Return the known names most like ``word``, best first, none when nothing is near."""
    by_lower = {name.lower(): name for name in known}
    return [by_lower[hit] for hit in get_close_matches(word.lower(), by_lower, n=limit, cutoff=0.6)]


def did_you_mean(word: str, known: Iterable[str], otherwise: str) -> str:
    """Return ``Did you mean a, b or c?``, or ``otherwise`` when no known name is near."""
    near = nearest(word, known)
    if not near:
        return otherwise
    return f"Did you mean {' or '.join(near)}?"
