"""How long are the rows in tokens of this model, and how much of them is learned?

All rows where there are few, else a sample that the rows' own content draws (so that it is the same every
time) and the longest ones. Rendered and tokenised as the training does it.
"""

from collections.abc import Sequence

import numpy as np

from presets.errors import DataError
from steps.audit import Places, Preview, TokenReport
from steps.chat import Encoded, Tokenizer, encode, render_row
from steps.messages import Conversation

LABELLED_ROWS = 500  # rows whose supervised tokens are counted; costs three renderings a row
BINS = 40
PREVIEWS = 3
PREVIEW_CHARACTERS = 4_000


class TokenMeter:
    """Takes rows and reports their lengths."""

    def __init__(self, tokenizer: Tokenizer, limit: int, *, assistant_only: bool) -> None:
        self._tokenizer, self._limit, self._assistant_only = tokenizer, limit, assistant_only
        self._lengths: list[int] = []
        self._supervised, self._trained, self._labelled = 0, 0, 0
        self._unanswered, self._longest = 0, 0
        self.cut, self.refused = Places(), Places()
        self.refusal = ""
        self.previews: list[Preview] = []

    def add(self, rows: Sequence[Conversation], places: Sequence[str], drawn: Sequence[bool]) -> None:
        """Measure some rows; those that were not ``drawn`` only tell how long the longest is."""
        texts, kept = [], []
        for row, place, is_drawn in zip(rows, places, drawn, strict=True):
            try:
                texts.append(render_row(self._tokenizer, row))
            except DataError as error:
                self.refusal = self.refusal or error.message
                self.refused.add(place)
                continue
            kept.append((row, place, is_drawn))
        if not texts:
            return
        encoded = self._tokenizer(
            texts, add_special_tokens=False, return_attention_mask=False, return_token_type_ids=False
        )["input_ids"]
        for (row, place, is_drawn), ids in zip(kept, encoded, strict=True):
            self._longest = max(self._longest, len(ids))
            if is_drawn:
                self._measure(row, place, len(ids))

    def _measure(self, row: Conversation, place: str, tokens: int) -> None:
        self._lengths.append(tokens)
        cut = tokens > self._limit
        if cut:
            self.cut.add(f"{place}: {tokens} tokens")
        if self._labelled < LABELLED_ROWS or (cut and self.cut.count <= LABELLED_ROWS):
            labels = self._labels(row)
            self._unanswered += cut and not labels.supervised
            self._supervised += labels.supervised
            self._trained += len(labels.ids)
            self._labelled += 1
        if len(self.previews) < PREVIEWS:
            self.previews.append(Preview(place, self._pieces(row)))

    def _labels(self, row: Conversation) -> Encoded:
        return encode(self._tokenizer, row, assistant_only=self._assistant_only, max_tokens=self._limit)

    def _pieces(self, row: Conversation) -> tuple[tuple[str, bool], ...]:
        """Return the text as far as it is read, in pieces where the loss begins or ends to be taken."""
        labels = self._labels(row)
        pieces: list[tuple[list[int], bool]] = []
        for token, label in zip(labels.ids, labels.labels, strict=True):
            if not pieces or pieces[-1][1] != (label >= 0):
                pieces.append(([], label >= 0))
            pieces[-1][0].append(token)
        shown = [(self._tokenizer.decode(ids), used) for ids, used in pieces]
        return tuple((piece[:PREVIEW_CHARACTERS], used) for piece, used in shown)

    def report(self, *, exact: bool) -> TokenReport | None:
        """Return what was measured, None when no row was."""
        if not self._lengths:
            return None
        lengths = np.array(self._lengths)
        counts, edges = np.histogram(lengths, bins=min(BINS, max(1, int(lengths.max()))), range=(0, int(lengths.max())))
        p50, p95 = np.percentile(lengths, (50, 95), method="inverted_cdf")
        return TokenReport(
            rows=len(lengths),
            exact=exact,
            mean=round(float(lengths.mean()), 2),
            p50=int(p50),
            p95=int(p95),
            longest=self._longest,
            limit=self._limit,
            cut_rows=self.cut.count,
            unanswered_rows=self._unanswered,
            supervised_share=round(self._supervised / max(1, self._trained), 4),
            edges=tuple(round(edge) for edge in edges),
            counts=tuple(int(count) for count in counts),
        )
