"""Attention inside each row of a pack, and nothing else computed: transformers' SDPA, branch by branch.

A mask over a whole pack is quadratic in the pack, and nearly all of it is thrown away. Here queries and keys of
branches of like size are gathered and computed together, so that the cost is that of the rows one by one.
Registered with transformers as an attention implementation of its own; without segments it is SDPA as it stands
(generation, scoring of single rows).
"""

from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from steps.ragged_attention import Ragged, ragged_attention
from steps.small_attention import small_attention

NAME = "kaiflow_segments"
SMALL_PRODUCTS = 1 << 20  # of queries, keys and heads: so many are kept, two bytes each, rather than computed again


def attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    segments: list[torch.Tensor] | Ragged | None = None,
    **options: Any,  # noqa: ANN401  (whatever else transformers passes)
) -> tuple[torch.Tensor, None]:
    """Return (B, T, heads, width) of queries (B, heads, T, width); keys and values may have fewer heads.

    Without ``segments`` this is transformers' SDPA.
    """
    if segments is None:
        found, _ = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **options
        )
        return found, None
    packs, heads, width, size = query.shape
    scale = size**-0.5 if scaling is None else scaling
    if isinstance(segments, tuple):
        return ragged_attention(query, key, value, segments, scale), None
    *groups, back = segments
    rows = query.transpose(1, 2).reshape(packs * width, heads, size)
    keys, values = (x.transpose(1, 2).reshape(packs * width, x.shape[1], x.shape[3]) for x in (key, value))
    repeats = heads // key.shape[1]
    outputs = []
    for queries, seen, mask in zip(groups[::3], groups[1::3], groups[2::3], strict=True):
        q, k, v = _taken(rows, queries), _taken(keys, seen), _taken(values, seen)
        if query.device.type == "cpu" and mask.numel() * heads <= SMALL_PRODUCTS and not dropout:
            answer = small_attention(q, k, v, mask, scale)
        else:
            answer = torch.nn.functional.scaled_dot_product_attention(
                q, repeat_kv(k, repeats), repeat_kv(v, repeats), attn_mask=mask, dropout_p=dropout, scale=scale
            )
        outputs.append(answer.transpose(1, 2).flatten(0, 1))
    merged = outputs[0] if len(outputs) == 1 else torch.cat(outputs)
    return merged.index_select(0, back).view(packs, width, heads, -1), None


def _taken(rows: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """Return (n, heads, length, width) of rows (places, heads, width)."""
    return rows.index_select(0, places.flatten()).view(*places.shape, *rows.shape[1:]).transpose(1, 2)


def in_use(model: Any) -> bool:  # noqa: ANN401  (a model, or an adapter around one)
    """Whether ``model`` was loaded with this implementation: without it segments would be ignored unseen."""
    return bool(model.config._attn_implementation == NAME)


def register() -> None:
    """Make the implementation known to transformers under :data:`NAME`."""
    AttentionInterface.register(NAME, attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)
