"""Which rows stay, which are held out, which are measured?  Decided on numbers alone, half a million at a time."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from steps.audit import PLACES_SHOWN
from steps.spool import Spool

SAMPLE_ROWS = 5_000
LONGEST_ROWS = 64

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Sides:
    """Which rows of the spool go where."""

    train: Mask
    held_out: Mask


@dataclass(frozen=True, slots=True)
class Sample:
    """The rows to be measured in tokens: drawn by their content, and the longest besides; or all of them."""

    drawn: Mask
    further: Mask
    exact: bool


def drop_copies(spool: Spool, kept: Mask) -> tuple[int, list[tuple[int, int]]]:
    """Take rows whose key an earlier row has out of ``kept``; return how many, and the first pairs (later, first)."""
    count = 0
    shown: list[tuple[int, int]] = []
    for keys, rows in spool.groups("same", kept.copy()):
        again = np.flatnonzero(keys[1:] == keys[:-1]) + 1
        copies = rows[again]
        kept[copies] = False
        count += len(copies)
        few = again[np.argsort(copies)[:PLACES_SHOWN]]
        shown += zip(rows[few].tolist(), rows[np.searchsorted(keys, keys[few])].tolist(), strict=True)
    return count, sorted(shown)[:PLACES_SHOWN]


def split(spool: Spool, kept: Mask, fraction: float) -> Sides:
    """Return the sides: held out are the rows whose key lies in the first ``fraction`` of all keys, one at least."""
    held_out = np.zeros_like(kept)
    bound = np.uint64(min(fraction * 2.0**64, 2.0**64 - 2048))
    for start, keys in spool.chunks("content"):
        held_out[start : start + len(keys)] = keys < bound
    held_out &= kept
    if fraction > 0 and kept.sum() > 1 and not held_out.any():
        held_out[_smallest(spool, "content", kept, 1)] = True
    return Sides(kept & ~held_out, held_out)


def _smallest(spool: Spool, name: str, kept: Mask, count: int, *, largest: bool = False) -> npt.NDArray[np.int64]:
    """Return the kept rows with the smallest (or largest) numbers."""
    numbers, rows = np.zeros(0, np.uint64), np.zeros(0, np.int64)
    for start, chunk in spool.chunks(name):
        mine = np.flatnonzero(kept[start : start + len(chunk)])
        numbers, rows = np.concatenate([numbers, chunk[mine]]), np.concatenate([rows, mine + start])
        if len(rows) > count:
            at = len(rows) - count if largest else count - 1
            order = np.argpartition(numbers, at)
            best = order[at:] if largest else order[:count]
            numbers, rows = numbers[best], rows[best]
    return rows


def draw_sample(spool: Spool, kept: Mask) -> Sample:
    """Return which rows are measured: all where there are few."""
    if kept.sum() <= SAMPLE_ROWS:
        return Sample(kept, np.zeros_like(kept), exact=True)
    by_content = _smallest(spool, "same", kept, SAMPLE_ROWS)
    longest = _smallest(spool, "characters", kept, LONGEST_ROWS, largest=True)
    drawn, further = np.zeros_like(kept), np.zeros_like(kept)
    drawn[by_content] = True
    further[longest] = True
    return Sample(drawn, further & ~drawn, exact=False)
