"""Rows of a pack as a tree of their common beginnings: what several rows begin with is computed once.

A chat template puts the same system turn before every row, and sets of questions repeat a passage: most tokens of
such rows are the same tokens at the same positions behind the same tokens, so that every layer gives them the same
hidden states. Loss and gradients are those of the rows one by one; only the number of tokens is smaller.

A token may be shared when no loss is taken on it and on the token behind it: the loss reads the hidden state of the
token before, which in a tree is not the one that lies before.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from steps.chat import IGNORED, Encoded

Tokens = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Branch:
    """What one row adds to the tree: ``length`` tokens from ``start`` on, which look back along ``path``.

    ``path`` holds the places of all tokens of the row, those it shares first; the last ``length`` are its own.
    """

    start: int
    length: int
    path: Tokens


@dataclass(frozen=True, slots=True)
class Layout:
    """One pack, laid out: four values a token, and one branch a row."""

    ids: Tokens
    positions: Tokens  # within the row, as if it stood alone
    labels: Tokens  # the row's first token is never predicted
    branches: tuple[Branch, ...]
    order: tuple[int, ...]  # which row each branch is


def shareable(row: Encoded) -> int:
    """Return how many tokens from its start on the row may share."""
    first = next((i for i, label in enumerate(row.labels) if label != IGNORED), len(row.labels))
    return max(0, first - 1)


def common_prefix(a: Tokens, b: Tokens) -> int:
    """Return how many tokens both begin with."""
    length = min(len(a), len(b))
    differing = np.flatnonzero(a[:length] != b[:length])
    return int(differing[0]) if len(differing) else length


def lay_out(rows: Sequence[Encoded], *, share: bool = True) -> Layout:
    """Return the pack of ``rows``; with ``share`` off every row brings all its tokens."""
    tokens = [np.array(row.ids, dtype=np.int64) for row in rows]
    order = sorted(range(len(rows)), key=lambda i: rows[i].ids) if share else list(range(len(rows)))
    branches: list[Branch] = []
    path = np.zeros(0, dtype=np.int64)
    ids, positions, labels = [], [], []
    end, limit = 0, 0
    for place, row in enumerate(order):
        shared = 0
        if share and place:
            before = order[place - 1]
            shared = min(limit, shareable(rows[row]), common_prefix(tokens[before], tokens[row]))
        own = len(tokens[row]) - shared
        path = np.concatenate([path[:shared], np.arange(end, end + own)])
        branches.append(Branch(end, own, path))
        ids.append(tokens[row][shared:])
        positions.append(np.arange(shared, shared + own))
        mine = np.array(rows[row].labels[shared:], dtype=np.int64)
        mine[: 1 if shared == 0 else 0] = IGNORED
        labels.append(mine)
        end += own
        limit = shareable(rows[row])
    return Layout(np.concatenate(ids), np.concatenate(positions), np.concatenate(labels), tuple(branches), tuple(order))
