"""Which rows belong together, since they begin alike?  Found once, before packing.

Rows that repeat a long beginning (questions about one passage, a long system turn) become families, which are packed
as if they were one row, the beginning counted once: in one pack it is computed once, in many it would be computed
anew. What is short and common to all (the system turn of a chat template) counts for every row, though it too is
computed once a pack: so a step sees as many rows as without sharing, and only costs less.
"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from steps.chat import Encoded
from steps.packing import pack
from steps.prefix_tree import common_prefix, shareable

FAMILY_TOKENS = 48  # what is shared at least: the more freely rows are mixed the better
GROUP_ROWS = 256


@dataclass(frozen=True, slots=True)
class Family:
    """Rows that lie in one pack, and the tokens that they count for."""

    rows: tuple[int, ...]
    tokens: int


def sharing_packs(rows: Sequence[Encoded], capacity: int, seed: int, growth: float = math.inf) -> list[list[int]]:
    """Return packs of at most ``capacity`` tokens, a family's beginning counted once, in random order.

    A pack holds at most ``growth`` times as many tokens as it would if all were counted: what makes packs hold more
    rows makes steps fewer, and a run needs some to learn.
    Families are mixed at random, packed in groups of about 256 rows, so that each step's mix stays close to the
    dataset's; the same seed gives the same packs.
    """
    chance = random.Random(seed)  # noqa: S311  (not for secrets)
    families = find_families(rows, capacity, chance, growth)
    chance.shuffle(families)
    packs: list[list[int]] = []
    group: list[Family] = []
    for number, family in enumerate(families, start=1):
        group.append(family)
        if sum(len(f.rows) for f in group) >= GROUP_ROWS or number == len(families):
            chosen = pack([f.tokens for f in group], capacity)
            packs += [[row for i in members for row in group[i].rows] for members in chosen]
            group = []
    chance.shuffle(packs)
    return packs


def find_families(rows: Sequence[Encoded], capacity: int, chance: random.Random, growth: float) -> list[Family]:
    """Return the families; a row that begins like no other is one of its own."""
    tokens = [np.array(row.ids, dtype=np.int64) for row in rows]
    limits = [shareable(row) for row in rows]
    order = sorted(range(len(rows)), key=lambda i: rows[i].ids)
    shared = [min(limits[a], limits[b], common_prefix(tokens[a], tokens[b])) for a, b in pairwise(order)]
    breaks = [place for place, length in enumerate(shared, start=1) if length < FAMILY_TOKENS]
    families: list[Family] = []
    for start, end in pairwise([0, *breaks, len(rows)]):
        members = order[start:end]
        common = min(shared[start : end - 1], default=0)
        mixed = [(row, len(tokens[row])) for row in members]
        chance.shuffle(mixed)
        families += _cut(mixed, common, capacity, growth)
    return families


def _cut(members: Sequence[tuple[int, int]], common: int, capacity: int, growth: float) -> list[Family]:
    """Cut (row, length) pairs that share ``common`` tokens into families that fit a pack."""
    families: list[Family] = []
    chosen: list[int] = []
    whole = shared = 0
    for row, length in members:
        grown, computed = whole + length, shared + length - (common if chosen else 0)
        if chosen and _counted(computed, grown, growth) > capacity:
            families.append(Family(tuple(chosen), _counted(shared, whole, growth)))
            chosen, grown, computed = [], length, length
        chosen.append(row)
        whole, shared = grown, computed
    return [*families, Family(tuple(chosen), _counted(shared, whole, growth))]


def _counted(computed: int, whole: int, growth: float) -> int:
    return max(computed, math.ceil(whole / growth))
