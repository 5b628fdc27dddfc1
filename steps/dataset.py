"""The dataset as training wants it: every row read and judged, each once, split once and for all.

Two passes. The first reads the sources row by row, writes the good rows to a spool, and keeps eight bytes here
and there of each. Then it is known which rows are duplicates. The second writes the two sides. Memory does not
grow with the text, only by some bytes a row.

A row's side follows from its own content, so that it stays there when rows are added, and no copy of a held-out
row can be trained on: duplicates go before the split.
"""

import gc
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from presets.recipe import AuditRecipe, DataRecipe
from steps import near_duplicates, verdicts
from steps.audit import PLACES_SHOWN, Audit, Places
from steps.gather import Gathered, Source, gather
from steps.scripts import count_scripts
from steps.selection import Mask, Sample, Sides, draw_sample, drop_copies, split
from steps.split import HELD_OUT_FILE, TRAIN_FILE, SideWriter, writing
from steps.spool import Spool, from_batch
from steps.token_meter import TokenMeter

SPOOL_FOLDER = ".spool"
SCRIPT_ROWS = 2_000

AsksForMeter = Callable[[], TokenMeter | None]


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
    gc.disable()  # rows make many objects and no cycles; looking for some would take a twentieth of the time
    spool = Spool(scratch, ("content", "same", "place", "characters", *near_duplicates.BAND_NAMES))
    try:
        gathered = gather(sources, data, rules, spool, audit)
        spool.close()
        verdicts.judge_rows(audit, gathered, rules)
        if not audit.errors:
            _sort_out(spool, gathered, data, rules, meter(), folder, audit)
    finally:
        gc.enable()
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
    sides = split(spool, kept, data.held_out_fraction)
    audit.rows_train, audit.rows_held_out = int(sides.train.sum()), int(sides.held_out.sum())
    verdicts.judge_size(audit, data)
    if audit.errors:
        return
    sample = draw_sample(spool, kept)
    with writing(folder / TRAIN_FILE) as train, writing(folder / HELD_OUT_FILE) as held_out:
        _second_pass(spool, gathered, sides, sample, (train, held_out), meter, audit)
    if meter is not None:
        audit.tokens, audit.previews = meter.report(exact=sample.exact), meter.previews
        verdicts.judge_lengths(audit, meter, rules)


def _first_of_each(spool: Spool, gathered: Gathered, rules: AuditRecipe, audit: Audit) -> Mask:
    """Return the rows that stay: of rows that say the same, the first."""
    kept = np.ones(spool.rows, dtype=bool)
    audit.duplicates, shown = drop_copies(spool, kept)
    verdicts.note_repeats(audit, "Duplicates", _repeats(spool, gathered, shown, audit.duplicates))
    if rules.near_duplicates == "remove":
        near = near_duplicates.find(spool, kept)
        kept[list(near.repeats)] = False
        audit.near_duplicates = len(near.repeats)
        pairs = list(near.repeats.items())
        verdicts.note_repeats(audit, "NearDuplicates", _repeats(spool, gathered, pairs, len(pairs)))
        if not near.complete:
            verdicts.note_incomplete(audit)
    return kept


def _repeats(spool: Spool, gathered: Gathered, pairs: Sequence[tuple[int, int]], count: int) -> Places:
    """Return ``count`` rows, of which the first (later, first) ``pairs`` are told by name."""
    found = Places()
    for pair in pairs[:PLACES_SHOWN]:
        later, first = (gathered.place(int(spool.numbers("place", row, 1)[0])) for row in pair)
        found.add(f"{later} repeats {first}")
    found.count = count
    return found


def _second_pass(
    spool: Spool,
    gathered: Gathered,
    sides: Sides,
    sample: Sample,
    writers: tuple[SideWriter, SideWriter],
    meter: TokenMeter | None,
    audit: Audit,
) -> None:
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
            place = spool.numbers("place", start, batch.num_rows)
            places = [gathered.place(int(place[i])) for i in mine]
            meter.add(conversations, places, drawn=sample.drawn[rows][mine].tolist())
        if len(texts) < SCRIPT_ROWS:
            texts += [row.messages[-1]["content"] for row in conversations]
    audit.scripts = count_scripts(texts[:SCRIPT_ROWS])
