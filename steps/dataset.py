"""The dataset as training wants it: every row read and judged, each once, split once and for all.

Two passes. The first reads the sources row by row, writes the good rows to a spool, and keeps eight bytes here
and there of each. Then it is known which rows are duplicates. The second writes the two sides. Memory does not
grow with the text, only by some bytes a row.

A row's side follows from its own content, so that it stays there when rows are added, and no copy of a held-out
row can be trained on: duplicates go before the split.
"""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from presets.recipe import AuditRecipe, DataRecipe
from steps import near_duplicates, verdicts
from steps.audit import Audit
from steps.gather import Gathered, Source, gather
from steps.scripts import count_scripts
from steps.split import HELD_OUT_FILE, TRAIN_FILE, SideWriter, writing
from steps.spool import Numbers, Spool, from_batch
from steps.token_meter import LONGEST_ROWS, SAMPLE_ROWS, TokenMeter

SPOOL_FOLDER = ".spool"
SCRIPT_ROWS = 2_000

Mask = npt.NDArray[np.bool_]
AsksForMeter = Callable[[], TokenMeter | None]


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


def prepare(
    sources: Sequence[Source], data: DataRecipe, rules: AuditRecipe, meter: AsksForMeter, folder: Path
) -> Audit:
    """Write train and held-out parquet below ``folder`` and return what was found; ``audit.errors`` says if it failed.

    ``meter`` is asked once the rows are read, for None where there is nothing to measure with.

    Raises:
        DataError: a file cannot be read at all.
    """
    scratch = folder / SPOOL_FOLDER
    shutil.rmtree(scratch, ignore_errors=True)
    audit = Audit()
    spool = Spool(scratch, ("content", "same", "place", "characters", *near_duplicates.BAND_NAMES))
    try:
        gathered = gather(sources, data, rules, spool, audit)
        spool.close()
        verdicts.judge_rows(audit, gathered, rules)
        if not audit.errors:
            _sort_out(spool, gathered, data, rules, meter(), folder, audit)
    finally:
        spool.close()
        shutil.rmtree(scratch, ignore_errors=True)
    return audit


def _sort_out(
    spool: Spool,
    gathered: Gathered,
    data: DataRecipe,
    rules: AuditRecipe,
    meter: TokenMeter | None,
    folder: Path,
    audit: Audit,
) -> None:
    kept = _first_of_each(spool, gathered, rules, audit)
    sides = split(spool.numbers("content"), kept, data.held_out_fraction)
    audit.rows_train, audit.rows_held_out = int(sides.train.sum()), int(sides.held_out.sum())
    verdicts.judge_size(audit, data)
    if audit.errors:
        return
    sample = _sample(spool, kept)
    with writing(folder / TRAIN_FILE) as train, writing(folder / HELD_OUT_FILE) as held_out:
        _second_pass(spool, gathered, sides, sample, (train, held_out), meter, audit)
    if meter is not None:
        audit.tokens, audit.previews = meter.report(exact=sample.exact), meter.previews
        verdicts.judge_lengths(audit, meter, rules)


def _first_of_each(spool: Spool, gathered: Gathered, rules: AuditRecipe, audit: Audit) -> Mask:
    """Return the rows that stay: of rows that say the same, the first."""
    copies, originals = _copies(spool.numbers("same"))
    kept = np.ones(spool.rows, dtype=bool)
    kept[copies] = False
    audit.duplicates = len(copies)
    place = spool.numbers("place")
    verdicts.note_repeats(audit, "Duplicates", gathered.repeats(place, zip(copies, originals, strict=True)))
    del copies, originals
    if rules.near_duplicates == "remove":
        near = near_duplicates.find(spool, kept)
        kept[list(near.repeats)] = False
        audit.near_duplicates = len(near.repeats)
        verdicts.note_repeats(audit, "NearDuplicates", gathered.repeats(place, near.repeats.items()))
        if not near.complete:
            verdicts.note_incomplete(audit)
    return kept


def _copies(keys: Numbers) -> tuple[list[int], list[int]]:
    """Return the rows whose key an earlier row has, and that row for each."""
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    again = np.flatnonzero(keys[1:] == keys[:-1]) + 1
    copies = order[again]
    firsts = order[np.searchsorted(keys, keys[again])]
    by_row = np.argsort(copies)
    return copies[by_row].tolist(), firsts[by_row].tolist()


def split(keys: Numbers, kept: Mask, fraction: float) -> Sides:
    """Return the sides: held out are the rows whose key lies in the first ``fraction`` of all keys, one at least."""
    held_out = kept & (keys < np.uint64(min(fraction * 2.0**64, 2.0**64 - 2048)))
    if fraction > 0 and kept.sum() > 1 and not held_out.any():
        candidates = np.flatnonzero(kept)
        held_out[candidates[np.argmin(keys[candidates])]] = True
    return Sides(kept & ~held_out, held_out)


def _sample(spool: Spool, kept: Mask) -> Sample:
    rows = np.flatnonzero(kept)
    if len(rows) <= SAMPLE_ROWS:
        return Sample(kept, np.zeros_like(kept), exact=True)
    by_content = rows[np.argpartition(spool.numbers("same")[rows], SAMPLE_ROWS)[:SAMPLE_ROWS]]
    longest = rows[np.argpartition(spool.numbers("characters")[rows], -LONGEST_ROWS)[-LONGEST_ROWS:]]
    drawn, further = np.zeros_like(kept), np.zeros_like(kept)
    drawn[by_content] = True
    further[longest] = True
    return Sample(drawn, further & ~drawn, exact=False)


def _second_pass(
    spool: Spool,
    gathered: Gathered,
    sides: Sides,
    sample: Sample,
    writers: tuple[SideWriter, SideWriter],
    meter: TokenMeter | None,
    audit: Audit,
) -> None:
    place = spool.numbers("place")
    texts: list[str] = []
    for start, batch in spool.batches():
        rows = slice(start, start + batch.num_rows)
        for writer, side in zip(writers, (sides.train, sides.held_out), strict=True):
            writer.write(batch.filter(pa.array(side[rows])))
        mine = np.flatnonzero(sample.drawn[rows] | sample.further[rows])
        if not len(mine):
            continue
        conversations = list(from_batch(batch.take(pa.array(mine))))
        if meter is not None:
            places = [gathered.place(int(place[start + i])) for i in mine]
            meter.add(conversations, places, drawn=sample.drawn[rows][mine].tolist())
        if len(texts) < SCRIPT_ROWS:
            texts += [row.messages[-1]["content"] for row in conversations]
    audit.scripts = count_scripts(texts[:SCRIPT_ROWS])
