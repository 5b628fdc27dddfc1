"""What was found in the data, for people (``audit.html``) and for programs (``audit.json``).

An error ends the run before anything is paid for; a warning goes along with it.
"""

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from presets.errors import DataError

PLACES_SHOWN = 5
FIRST_ERRORS = 3


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that a person should know, with the rows it is about and the remedy."""

    severity: Literal["error", "warning", "note"]
    reason: str
    message: str
    fix: str
    rows: tuple[str, ...] = ()  # the first of them, as file and line

    def __str__(self) -> str:
        rows = f" {'; '.join(self.rows)}." if self.rows else ""
        return f"{self.message}{rows} {self.fix}".strip()


@dataclass(frozen=True, slots=True)
class FileReport:
    """One file of the input and how it was read."""

    name: str
    sha256: str
    format: str
    shape: str
    shape_reason: str
    rows: int
    ignored_columns: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TokenReport:
    """Lengths of the training rows in tokens, rendered by the model's chat template."""

    rows: int  # measured
    exact: bool  # whether that was all of them
    mean: float
    p50: int
    p95: int
    longest: int
    limit: int
    cut_rows: int  # of the measured ones, longer than the limit
    unanswered_rows: int  # of the cut ones: nothing supervised is left
    supervised_share: float  # of the tokens that are trained on, those that the loss is taken on
    edges: tuple[int, ...]  # of the histogram's bins, one more than there are counts
    counts: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Preview:
    """A row as the model reads it, in pieces, each with whether the loss is taken on it."""

    place: str
    pieces: tuple[tuple[str, bool], ...]


@dataclass
class Audit:
    """What was found."""

    files: list[FileReport] = field(default_factory=list)
    rows_read: int = 0
    rows_bad: int = 0
    duplicates: int = 0
    near_duplicates: int = 0
    rows_train: int = 0
    rows_held_out: int = 0
    characters: int = 0
    skipped_files: list[str] = field(default_factory=list)
    tokens: TokenReport | None = None
    scripts: dict[str, int] = field(default_factory=dict)
    previews: list[Preview] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    @property
    def errors(self) -> list[Finding]:
        """What ends the run."""
        return [finding for finding in self.findings if finding.severity == "error"]

    @property
    def sorted_out(self) -> bool:
        """Whether copies were looked for and the rows split; bad rows end the audit before."""
        return bool(self.rows_train or self.rows_held_out or self.duplicates or self.near_duplicates)

    def to_json(self) -> dict[str, Any]:
        """Return the audit as it is written; the same data gives the same text."""
        return asdict(self)

    def require_usable(self) -> None:
        """Return when the data can be trained on.

        Raises:
            DataError: it cannot; all that is wrong is in the message.
        """
        errors = self.errors
        if not errors:
            return
        rest = f" And {len(errors) - FIRST_ERRORS} more errors." if len(errors) > FIRST_ERRORS else ""
        first, *others = errors[:FIRST_ERRORS]
        also = "".join(f" Also: {other}" for other in others)
        rows = f" {'; '.join(first.rows)}." if first.rows else ""
        raise DataError(first.reason, f"{first.message}{rows}", fix=f"{first.fix}{also}{rest}")


class Places:
    """Counts rows of one kind and remembers where the first of them stand."""

    def __init__(self) -> None:
        self.count = 0
        self._shown: list[str] = []

    def add(self, place: str) -> None:
        """Count one."""
        self.count += 1
        if len(self._shown) < PLACES_SHOWN:
            self._shown.append(place)

    @property
    def rows(self) -> tuple[str, ...]:
        """Return the first places, and how many more there are."""
        more = self.count - len(self._shown)
        return (*self._shown, f"and {more} more") if more else tuple(self._shown)
