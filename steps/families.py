"""Which rows belong together, since they begin alike?  Found once, before packing.

Rows that repeat a long beginning (questions about one passage) become families, which are packed as if they were
one row: in one pack the passage is computed once, in many it would be computed anew. What nearly all rows begin with
(the system turn of the chat template) is a trunk, which every pack holds once.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from steps.chat import Encoded
from steps.packing import pack
from steps.prefix_tree import common_prefix, shareable

TRUNK_TOKENS = 4  # shared by neighbours, less is no trunk
FAMILY_TOKENS = 32  # beyond the trunk, less makes no family: the more freely rows are mixed the better
GROUP_ROWS = 256


@dataclass(frozen=True, slots=True)
class Family:
    """Rows that lie in one pack, and the tokens that they take there, the trunk included."""

    rows: tuple[int, ...]
    trunk: int  # which trunk they share with others
    tokens: int


def sharing_packs(rows: Sequence[Encoded], capacity: int, seed: int) -> list[list[int]]:
    """Return packs of at most ``capacity`` tokens, common beginnings counted once, in random order.

    Families are mixed at random, packed in groups of about 256 rows, so that each step's mix stays close to the
    dataset's; the same seed gives the same packs.
    """
    chance = random.Random(seed)  # noqa: S311  (not for secrets)
    families, trunks = find_families(rows, capacity, chance)
    chance.shuffle(families)
    packs: list[list[int]] = []
    group: list[Family] = []
    for number, family in enumerate(families, start=1):
        group.append(family)
        if sum(len(f.rows) for f in group) >= GROUP_ROWS or number == len(families):
            packs += _packed(group, trunks, capacity)
            group = []
    chance.shuffle(packs)
    return packs


def _packed(group: Sequence[Family], trunks: Sequence[int], capacity: int) -> list[list[int]]:
    """Pack the families of each trunk; then what is left over of several trunks together."""
    found: list[tuple[list[int], int]] = []
    for trunk in sorted({family.trunk for family in group}):
        mine = [family for family in group if family.trunk == trunk]
        shared = trunks[trunk]
        for chosen in pack([family.tokens - shared for family in mine], capacity - shared):
            size = shared + sum(mine[i].tokens - shared for i in chosen)
            found.append(([row for i in chosen for row in mine[i].rows], size))
    return [[row for i in chosen for row in found[i][0]] for chosen in pack([size for _, size in found], capacity)]


def find_families(rows: Sequence[Encoded], capacity: int, chance: random.Random) -> tuple[list[Family], list[int]]:
    """Return the families, and the length of every trunk."""
    tokens = [np.array(row.ids, dtype=np.int64) for row in rows]
    limits = [shareable(row) for row in rows]
    order = sorted(range(len(rows)), key=lambda i: rows[i].ids)
    shared = [min(limits[a], limits[b], common_prefix(tokens[a], tokens[b])) for a, b in pairwise(order)]
    families: list[Family] = []
    trunks: list[int] = []
    for start, end in _runs(shared, TRUNK_TOKENS):
        trunk = min(shared[start : end - 1], default=0)
        for first, last in _runs(shared[start : end - 1], trunk + FAMILY_TOKENS):
            members = order[start + first : start + last]
            common = min(shared[start + first : start + last - 1], default=len(tokens[members[0]]))
            families += _cut(members, common, [len(t) for t in tokens], len(trunks), capacity, chance)
        trunks.append(trunk)
    return families, trunks


def _runs(shared: Sequence[int], least: int) -> list[tuple[int, int]]:
    """Return runs [start, end) of neighbours of which each shares at least so much with the one before."""
    breaks = [i + 1 for i, length in enumerate(shared) if length < least]
    return list(pairwise([0, *breaks, len(shared) + 1]))


def _cut(
    members: Sequence[int], common: int, lengths: Sequence[int], trunk: int, capacity: int, chance: random.Random
) -> list[Family]:
    """Cut rows that share ``common`` tokens into families that fit a pack, at random."""
    mixed = list(members)
    chance.shuffle(mixed)
    families: list[Family] = []
    chosen: list[int] = []
    size = common
    for row in mixed:
        own = lengths[row] - common
        if chosen and size + own > capacity:
            families.append(Family(tuple(chosen), trunk, size))
            chosen, size = [], common
        chosen.append(row)
        size += own
    return [*families, Family(tuple(chosen), trunk, size)]
