"""Attention over rows of any length without padding: torch's variable-length flash attention, on CUDA.

The branches of packs lie one behind the other, each with as many queries as tokens of its own and as many keys as lie
on its path. Flash attention aligns the last query with the last key, which is what a branch that looks back along a
shared beginning needs: nothing is padded, masked or computed for nothing.
"""

from collections.abc import Sequence

import numpy as np
import torch

from steps.prefix_tree import Layout

LEAST_CAPABILITY = (8, 0)  # of flash attention
# Places of queries and keys, their starts, the way back (an index a place), the most queries and keys of a branch.
Ragged = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, int, int]


def usable(device: torch.device) -> bool:
    """Whether the card and the installed torch have the kernel."""
    if device.type != "cuda" or torch.cuda.get_device_capability(device) < LEAST_CAPABILITY:
        return False
    try:
        from torch.nn.attention.varlen import varlen_attn  # noqa: F401
    except ImportError:
        return False
    return True


def ragged(layouts: Sequence[Layout], width: int) -> Ragged:
    """Return whom each token of packs (B, width) looks at, as :func:`ragged_attention` takes it."""
    found = [(line * width, branch) for line, layout in enumerate(layouts) for branch in layout.branches]
    queries = [offset + np.arange(b.start, b.start + b.length) for offset, b in found]
    keys = [offset + b.path for offset, b in found]
    own, seen = (np.array([len(places) for places in side]) for side in (queries, keys))
    back = np.zeros(len(layouts) * width, dtype=np.int64)  # padding points at the first token
    back[np.concatenate(queries)] = np.arange(own.sum())
    return (
        *(torch.from_numpy(np.concatenate(side)) for side in (queries, keys)),
        *(torch.from_numpy(np.concatenate([[0], np.cumsum(side)]).astype(np.int32)) for side in (own, seen)),
        torch.from_numpy(back),
        int(own.max()),
        int(seen.max()),
    )  # type: ignore[return-value]  # mypy does not count what is unpacked


def ragged_attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, where: Ragged, scale: float
) -> torch.Tensor:
    """Return (B, T, heads, width) of queries (B, heads, T, width); keys and values may have fewer heads."""
    from torch.nn.attention.varlen import varlen_attn

    queries, keys, query_starts, key_starts, back, most_queries, most_keys = where
    packs, heads, length, _ = query.shape

    def taken(x: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        return x.transpose(1, 2).reshape(-1, x.shape[1], x.shape[3]).index_select(0, places)

    found = varlen_attn(
        taken(query, queries), taken(key, keys), taken(value, keys), query_starts, key_starts, most_queries, most_keys,
        scale=scale, window_size=(-1, 0), enable_gqa=key.shape[1] != heads,
    )  # fmt: skip
    assert isinstance(found, torch.Tensor)  # noqa: S101  (no auxiliary result is asked for)
    return found.index_select(0, back).view(packs, length, heads, -1)
