"""Packs as tensors, and whom each token looks at.

Shapes: B packs of T tokens, T the longest pack of the batch or a little more; places count through all of
them (pack · T + token).
Attention is given in one of three forms: as a dense mask (B, 1, T, T) for models that know nothing else; as the tensors
of :func:`segments` for :mod:`steps.segment_attention`, which computes no product that the mask would throw away; or,
for a kernel that needs no padding either, as those of :mod:`steps.ragged_attention`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch.utils.data import Dataset

from steps.chat import IGNORED, Encoded
from steps.prefix_tree import Branch, Layout, lay_out
from steps.ragged_attention import ragged

Batch = dict[str, Any]  # tensors by name; "segments" is a list or a tuple
Form = Literal["dense", "segments", "ragged"]  # how attention is given
# Lengths come in steps: oneDNN compiles and keeps code for every shape that it meets, megabytes a training step.
WIDTH_STEP, QUERY_STEP, KEY_STEP = 16, 8, 16
PADDING_WORTH = 1.25  # branches are computed together while their padded products are not more than this
FEW_PRODUCTS = 1 << 16  # below so many products a call of its own costs more than it saves


FILLER = Encoded((0,), (IGNORED,))  # a pack without rows: nothing is learned from it


class Packs(Dataset[list[Encoded]]):
    """The packs of one epoch order; item i is the list of rows of pack i."""

    def __init__(self, rows: Sequence[Encoded], packs: Sequence[Sequence[int]]) -> None:
        self._rows = rows
        self._packs = packs

    def __len__(self) -> int:
        return len(self._packs)

    def __getitem__(self, index: int) -> list[Encoded]:
        return [self._rows[i] for i in self._packs[index]] or [FILLER]


@dataclass(frozen=True, slots=True)
class Collator:
    """Turns packs into a batch; ``pad_id`` fills, unseen by attention and loss."""

    pad_id: int
    form: Form = "segments"
    share: bool = True

    def __call__(self, packs: Sequence[Sequence[Encoded]]) -> Batch:
        """Return one batch of the packs."""
        return collate(packs, self.pad_id, self.form, share=self.share)


def collate(packs: Sequence[Sequence[Encoded]], pad_id: int, form: Form = "segments", *, share: bool = True) -> Batch:
    """Return ``input_ids``, ``position_ids``, ``labels`` (B, T) and ``attention_mask`` or ``segments``."""
    layouts = [lay_out(rows, share=share) for rows in packs]
    width = rounded(max(len(layout.ids) for layout in layouts), WIDTH_STEP)
    ids = np.full((len(packs), width), pad_id)
    positions = np.zeros((len(packs), width), dtype=np.int64)
    labels = np.full((len(packs), width), IGNORED)
    for line, layout in enumerate(layouts):
        length = len(layout.ids)
        ids[line, :length] = layout.ids
        positions[line, :length] = layout.positions
        labels[line, :length] = layout.labels
    batch: Batch = {name: torch.from_numpy(a) for name, a in (("input_ids", ids), ("position_ids", positions))}
    batch["labels"] = torch.from_numpy(labels)
    if form == "dense":
        batch["attention_mask"] = _mask(layouts, width)
    else:
        batch["segments"] = ragged(layouts, width) if form == "ragged" else segments(layouts, width)
    return batch


def rounded(length: int, step: int) -> int:
    """Return ``length`` up to the next multiple of ``step``."""
    return -(-length // step) * step


def placed(batch: Batch, device: torch.device) -> Batch:
    """Return the batch on ``device``."""

    def there(value: Any) -> Any:  # noqa: ANN401  (a tensor, several, or a number among them)
        if isinstance(value, list | tuple):
            return type(value)(there(item) for item in value)
        return value.to(device) if isinstance(value, torch.Tensor) else value

    return {name: there(value) for name, value in batch.items()}


def _mask(layouts: Sequence[Layout], width: int) -> torch.Tensor:
    """Return (B, 1, T, T), True where the token of the line may look at the token of the column."""
    mask = np.zeros((len(layouts), 1, width, width), dtype=bool)
    diagonal = np.arange(width)
    mask[:, :, diagonal, diagonal] = True  # padding looks at itself: a row without any would give NaN
    for line, layout in enumerate(layouts):
        for branch in layout.branches:
            rows = slice(branch.start, branch.start + branch.length)
            mask[line, 0, rows, branch.path] = _causal(branch).T
    return torch.from_numpy(mask)


def _causal(branch: Branch) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Return (own tokens, tokens of the path): what comes before, or the token itself."""
    reach = len(branch.path)
    return np.arange(reach)[None, :] <= np.arange(reach - branch.length, reach)[:, None]


def segments(layouts: Sequence[Layout], width: int) -> list[torch.Tensor]:
    """Return, for every group of branches of like size, three tensors; and last the way back.

    A group of n branches with at most Q own tokens and K on their paths, or a little less: places of the queries
    (n, Q), places of the keys (n, K), mask (n, 1, Q, K). The way back has one entry a place (B · T): where, among all
    queries of all groups one behind the other, the token's own lies; padding points at the first.
    """
    found = [(line * width, branch) for line, layout in enumerate(layouts) for branch in layout.branches]
    found.sort(key=lambda item: (len(item[1].path), item[1].length))
    tensors: list[torch.Tensor] = []
    back = np.zeros(len(layouts) * width, dtype=np.int64)
    begin = 0
    for group in _groups(found):
        most_own = rounded(max(b.length for _, b in group), QUERY_STEP)
        most = rounded(max(len(b.path) for _, b in group), KEY_STEP)
        queries = np.zeros((len(group), most_own), dtype=np.int64)
        keys = np.zeros((len(group), most), dtype=np.int64)
        mask = np.zeros((len(group), 1, most_own, most), dtype=bool)
        mask[:, :, :, 0] = True  # what fills up looks somewhere: a row without any would give NaN
        for n, (offset, branch) in enumerate(group):
            places = offset + np.arange(branch.start, branch.start + branch.length)
            queries[n, : branch.length] = places
            keys[n, : len(branch.path)] = offset + branch.path
            mask[n, 0, : branch.length, : len(branch.path)] = _causal(branch)
            back[places] = begin + n * most_own + np.arange(branch.length)
        begin += queries.size
        tensors += [torch.from_numpy(queries), torch.from_numpy(keys), torch.from_numpy(mask)]
    return [*tensors, torch.from_numpy(back)]


def _groups(found: Sequence[tuple[int, Branch]]) -> Iterator[list[tuple[int, Branch]]]:
    """Yield runs of branches that are computed together without much padding."""
    group: list[tuple[int, Branch]] = []
    needed = 0
    for item in found:
        together = [*group, item]
        own = max(b.length for _, b in together)
        padded, exact = len(together) * own * len(item[1].path), needed + item[1].length * len(item[1].path)
        if group and padded > max(PADDING_WORTH * exact, FEW_PRODUCTS):
            yield group
            group, exact = [item], item[1].length * len(item[1].path)
        else:
            group = together
        needed = exact
    if group:
        yield group
