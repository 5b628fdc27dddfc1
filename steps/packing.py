"""Rows into packs: several rows in one sequence, so that no computation is spent on padding.

Best fit decreasing: rows from the longest to the shortest, each into the fullest pack that still holds it.
Attention is kept inside each row by :func:`steps.batches.collate`; :mod:`steps.families` says what is packed.
"""

import bisect
from collections.abc import Sequence


def pack(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Return packs of row indices, none longer than ``capacity`` tokens, each row in exactly one.

    Raises:
        ValueError: a row is longer than a pack.
    """
    if any(length > capacity for length in lengths):
        raise ValueError(f"a row of {max(lengths)} tokens does not fit a pack of {capacity}")
    packs: list[list[int]] = []
    room: list[tuple[int, int]] = []  # (tokens left, pack), sorted
    for row in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        place = bisect.bisect_left(room, (lengths[row], -1))
        if place < len(room):
            left, chosen = room.pop(place)
        else:
            left, chosen = capacity, len(packs)
            packs.append([])
        packs[chosen].append(row)
        bisect.insort(room, (left - lengths[row], chosen))
    return packs


def packs_in_order(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Return packs that keep the order of the rows: each pack is filled until the next row no longer fits."""
    packs: list[list[int]] = []
    room = 0
    for row, length in enumerate(lengths):
        if length > capacity:
            raise ValueError(f"a row of {length} tokens does not fit a pack of {capacity}")
        if length > room:
            packs.append([])
            room = capacity
        packs[-1].append(row)
        room -= length
    return packs
