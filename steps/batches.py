"""Packs as tensors: ids, positions that begin anew with each row, and attention that stays inside each row.

Shapes: B packs of T tokens, T the longest pack of the batch. The mask is (B, 1, T, T), True where attention is
allowed; torch's scaled dot product attention takes it as it is, for every model.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.utils.data import Dataset

from steps.chat import IGNORED, Encoded

Batch = dict[str, torch.Tensor]


class Packs(Dataset[list[Encoded]]):
    """The packs of one epoch order; item i is the list of rows of pack i."""

    def __init__(self, rows: Sequence[Encoded], packs: Sequence[Sequence[int]]) -> None:
        self._rows = rows
        self._packs = packs

    def __len__(self) -> int:
        return len(self._packs)

    def __getitem__(self, index: int) -> list[Encoded]:
        return [self._rows[i] for i in self._packs[index]]


@dataclass(frozen=True, slots=True)
class Collator:
    """Turns packs into a batch; ``pad_id`` fills, unseen by attention and loss."""

    pad_id: int

    def __call__(self, packs: Sequence[Sequence[Encoded]]) -> Batch:
        """Return one batch of the packs."""
        return collate(packs, self.pad_id)


def collate(packs: Sequence[Sequence[Encoded]], pad_id: int) -> Batch:
    """Return ``input_ids``, ``position_ids``, ``labels`` (B, T) and ``attention_mask`` (B, 1, T, T)."""
    width = max(sum(len(row.ids) for row in pack) for pack in packs)
    ids = torch.full((len(packs), width), pad_id)
    positions = torch.zeros((len(packs), width), dtype=torch.long)
    labels = torch.full((len(packs), width), IGNORED)
    segments = torch.full((len(packs), width), -1)
    for line, pack in enumerate(packs):
        start = 0
        for number, row in enumerate(pack):
            end = start + len(row.ids)
            ids[line, start:end] = torch.tensor(row.ids)
            positions[line, start:end] = torch.arange(end - start)
            labels[line, start + 1 : end] = torch.tensor(row.labels[1:])  # nothing predicts a row's first token
            segments[line, start:end] = number
            start = end
    return {"input_ids": ids, "position_ids": positions, "labels": labels, "attention_mask": _blocks(segments)}


def _blocks(segments: torch.Tensor) -> torch.Tensor:
    """Return the causal mask that is True only inside one segment; padding attends to itself."""
    same = segments[:, :, None] == segments[:, None, :]
    return torch.tril(same)[:, None]
