"""Which rows say almost the same?  MinHash over word shingles finds pairs, an exact comparison confirms them.

A shingle is 16 bytes of letters and digits from the start of a word on (in scripts without spaces, from every
character on); case, punctuation and white space do not count. Signatures of all rows of a batch are taken at
once, without a loop over rows. A pair counts as near when what is asked and what is answered each share nine
shingles of ten, and so do the first and the last line of what is asked, which differ by a word or so at most: rows
that ask different questions of one long passage are different rows.

MinHash and banding: Broder 1997; Leskovec, Rajaraman, Ullman, Mining of Massive Datasets, chapter 3.
"""

import itertools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from steps.messages import Conversation
from steps.spool import Numbers, Spool, from_batch

BANDS, ROWS_OF_BAND = 3, 4
WORDS = "words"  # a key over all shingles: rows of the same words share it, however many are like them
BAND_NAMES = (*(f"band{i}" for i in range(BANDS)), WORDS)
SHINGLE_BYTES = 16
SIMILARITY = 0.9
QUESTION_SHINGLES_APART = 8
CANDIDATES = 10_000  # pairs that are compared at most

Bytes = npt.NDArray[np.uint8]


def _folded(byte: int) -> int:
    """Return the byte of a letter or digit in lower case, as it stands beyond ASCII, 0 for what does not count."""
    character = chr(byte)
    return byte if byte >= 0x80 else ord(character.lower()) if character.isalnum() else 0


_FOLD = bytes(map(_folded, range(256)))
_DROPPED = bytes(byte for byte in range(256) if not _folded(byte))
_ODD = np.uint64(0x9E3779B97F4A7C15)
_PERMUTATIONS = np.array([(0x9E3779B1 * (2 * i + 1)) & (2**32 - 1) | 1 for i in range(BANDS * ROWS_OF_BAND)], np.uint32)
_NARROW_SHIFT = np.uint32(15)
_MIX = np.uint64(0xFF51AFD7ED558CCD)
_SHIFT = np.uint64(33)


def shingles(text: Bytes, bounds: npt.NDArray[np.int64]) -> tuple[Numbers, npt.NDArray[np.int64]]:
    """Return the shingle hashes of texts that lie one behind the other, and where each text's begin.

    ``bounds`` are the offsets of the texts in ``text``, one more than there are texts.
    """
    raw = text.tobytes()
    kept = np.frombuffer(raw.translate(_FOLD), dtype=np.uint8) != 0
    starts = kept.copy()
    starts[1:] &= ~kept[:-1] | (text[1:] >= 0xE3)  # U+3000 and up: East Asian scripts have no spaces
    inner = bounds[1:-1]
    starts[inner[inner < len(starts)]] |= kept[inner[inner < len(starts)]]
    packed = raw.translate(_FOLD, _DROPPED) + bytes(SHINGLE_BYTES)
    windows = np.lib.stride_tricks.sliding_window_view(np.frombuffer(packed, dtype=np.uint8), SHINGLE_BYTES)
    positions = np.flatnonzero(starts)
    counted = np.zeros(len(kept) + 1, dtype=np.int32)
    np.cumsum(kept.astype(np.int32), dtype=np.int32, out=counted[1:])  # without the cast it takes ten times as long
    place, begins = counted[positions], np.searchsorted(positions, bounds)
    letters = windows[place]
    left = np.repeat(counted[bounds[1:]], np.diff(begins)) - place  # to the end of the shingle's own text
    short = np.flatnonzero(left < SHINGLE_BYTES)
    letters[short] *= np.arange(SHINGLE_BYTES) < left[short, None]
    words = letters.view(np.uint64)
    hashes = words[:, 0] * _MIX ^ (words[:, 1] * _ODD + np.uint64(0x165667B19E3779F9))
    hashes ^= hashes >> _SHIFT
    hashes *= _MIX
    hashes ^= hashes >> _SHIFT
    return hashes, begins


def signatures(batch: pa.RecordBatch) -> dict[str, Numbers]:
    """Return the band keys of the rows of a batch; a row without a word gets its own."""
    hashes, begins = shingles(*_texts(batch))
    count = batch.num_rows
    empty = begins[1:] == begins[:-1]
    total = np.zeros(count, dtype=np.uint64)
    mins = np.zeros((BANDS * ROWS_OF_BAND, count), dtype=np.uint64)
    if len(hashes):
        at = np.minimum(begins[:-1], len(hashes) - 1)
        narrow = (hashes >> np.uint64(32)).astype(np.uint32)  # half the width, twice the speed; enough for a minimum
        for i, odd in enumerate(_PERMUTATIONS):
            mixed = narrow * odd
            mixed ^= mixed >> _NARROW_SHIFT
            mins[i] = np.minimum.reduceat(mixed, at)
        total = np.add.reduceat(hashes, at)
    own = np.arange(count, dtype=np.uint64) * _MIX + np.uint64(batch.num_rows)
    bands: dict[str, Numbers] = {}
    bands[WORDS] = np.where(empty, own, total)
    for band, name in enumerate(BAND_NAMES[:BANDS]):
        key = np.zeros(count, dtype=np.uint64)
        for row in mins[band * ROWS_OF_BAND : (band + 1) * ROWS_OF_BAND]:
            key = (key ^ row) * _MIX
            key ^= key >> _SHIFT
        bands[name] = np.where(empty, own, key)
    return bands


def _texts(batch: pa.RecordBatch) -> tuple[Bytes, npt.NDArray[np.int64]]:
    """Return the UTF-8 bytes of all contents of a batch, and where each row's begin and end."""
    messages = batch.column("messages")
    contents = messages.values.field("content")
    offsets = np.frombuffer(contents.buffers()[1], dtype=np.int64)
    offsets = offsets[contents.offset : contents.offset + len(contents) + 1]
    data = contents.buffers()[2]
    text = np.frombuffer(data, dtype=np.uint8) if data is not None else np.zeros(0, np.uint8)
    rows = np.asarray(messages.offsets)
    bounds = offsets[rows]
    return text[bounds[0] : bounds[-1]], bounds - bounds[0]


@dataclass(frozen=True, slots=True)
class NearDuplicates:
    """Rows that go, each with the row that it repeats; and whether all pairs could be looked at."""

    repeats: dict[int, int]
    complete: bool


def find(spool: Spool, kept: npt.NDArray[np.bool_]) -> NearDuplicates:
    """Return the rows of ``kept`` that say almost the same as an earlier one."""
    pairs, complete = _candidates(spool, kept)
    if not len(pairs):
        return NearDuplicates({}, complete)
    sets = _shingle_sets(spool, set(pairs.ravel().tolist()))
    repeats: dict[int, int] = {}
    for first, later in pairs.tolist():
        if later not in repeats and first not in repeats and _near(sets[first], sets[later]):
            repeats[later] = first
    return NearDuplicates(repeats, complete)


def _candidates(spool: Spool, kept: npt.NDArray[np.bool_]) -> tuple[npt.NDArray[np.int64], bool]:
    """Return pairs (earlier, later) that share a band, in the order of the later one.

    Each row is paired with the first of its band and the one before it: what is alike is mostly the next of kin.
    """
    found, complete = [np.zeros((0, 2), np.int64)], True
    for name in BAND_NAMES:
        for keys, rows in spool.groups(name, kept):
            again = np.flatnonzero(keys[1:] == keys[:-1]) + 1
            complete &= len(again) <= CANDIDATES
            again = again[:CANDIDATES]
            first = np.stack([rows[np.searchsorted(keys, keys[again])], rows[again]], axis=1)
            before = np.stack([rows[again - 1], rows[again]], axis=1)
            found += [first, before]
    pairs = np.unique(np.concatenate(found), axis=0)
    complete &= len(pairs) <= CANDIDATES
    pairs = pairs[:CANDIDATES]
    return pairs[np.lexsort((pairs[:, 0], pairs[:, 1]))], complete


Sets = list[npt.NDArray[np.uint32]]  # shingles of the parts of a row


def _shingle_sets(spool: Spool, wanted: set[int]) -> dict[int, Sets]:
    sets: dict[int, Sets] = {}
    for start, batch in spool.batches():
        mine = [i for i in range(batch.num_rows) if start + i in wanted]
        if mine:
            parts = [_parts(row) for row in from_batch(batch.take(pa.array(mine)))]
            found = iter(_sets([text for texts in parts for text in texts]))
            sets |= {start + i: [next(found) for _ in texts] for i, texts in zip(mine, parts, strict=True)}
    return sets


def _parts(row: Conversation) -> tuple[str, ...]:
    """Return what is asked, its first and its last line where it has several, and what is answered."""
    if row.is_text:
        return (row.messages[0]["content"],)
    asked = "\n".join([m["content"] for m in row.messages if m["role"] != "assistant"])
    said = "\n".join([m["content"] for m in row.messages if m["role"] == "assistant"])
    lines = [line for line in asked.splitlines() if line.strip()]
    return (asked, lines[0], lines[-1], said) if len(lines) > 1 else (asked, said)


def _sets(texts: list[str]) -> list[npt.NDArray[np.uint32]]:
    encoded = [text.encode("utf-8", errors="replace") for text in texts]
    bounds = np.cumsum([0, *map(len, encoded)])
    hashes, begins = shingles(np.frombuffer(b"".join(encoded), dtype=np.uint8), bounds)
    narrow = hashes.astype(np.uint32)  # half the memory, and a chance of one in a million a text
    return [np.unique(narrow[a:b]) for a, b in itertools.pairwise(begins)]


def _near(first: Sets, later: Sets) -> bool:
    if len(first) != len(later) or len(np.setxor1d(first[0], later[0], assume_unique=True)) > _apart(first):
        return False
    return all(_similar(a, b) >= SIMILARITY for a, b in zip(first, later, strict=True))


def _apart(sets: Sets) -> int:
    """Return by how many shingles the first texts may differ: a question by few, plain text by its share alone."""
    return QUESTION_SHINGLES_APART if len(sets) > 1 else len(sets[0])


def _similar(a: npt.NDArray[np.uint32], b: npt.NDArray[np.uint32]) -> float:
    """Return the Jaccard similarity; texts without a word are not compared, and so not similar."""
    shared = len(np.intersect1d(a, b, assume_unique=True))
    union = len(a) + len(b) - shared
    return shared / union if union else 0.0
