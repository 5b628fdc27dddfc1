"""Attention over many short rows on a CPU: plain matrix products, the probabilities kept for the backward pass.

torch's fused attention works through blocks of each row and head by itself; for rows of some dozen tokens its backward
pass takes three to four times as long as the products do (torch 2.13). Query heads of one key head are computed as
one, so that keys and values are never repeated.
"""

from typing import Any

import torch


def small_attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor, scale: float
) -> torch.Tensor:
    """Return (n, heads, Q, width) of queries (n, heads, Q, width), keys and values (n, groups, K, width).

    ``mask`` (n, 1, Q, K) is True where a query looks; every query looks somewhere.
    """
    found: torch.Tensor = _Products.apply(query, key, value, mask, scale)  # type: ignore[no-untyped-call]
    return found


class _Products(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        mask: torch.Tensor,
        scale: float,
    ) -> torch.Tensor:
        rows, heads, length, width = query.shape
        groups = key.shape[1]
        grouped = (query * scale).reshape(rows, groups, heads // groups * length, width)
        scores = (grouped @ key.transpose(-1, -2)).float().view(rows, groups, heads // groups, length, -1)
        scores.masked_fill_(~mask[:, :, None], -torch.inf)
        likely = torch.softmax(scores, dim=-1).to(value.dtype).view(rows, groups, heads // groups * length, -1)
        ctx.save_for_backward(grouped, key, value, likely)
        ctx.scale, ctx.shape = scale, query.shape
        return (likely @ value).view(query.shape)

    @staticmethod
    def backward(ctx: Any, *upstream: torch.Tensor) -> Any:  # noqa: ANN401
        grouped, key, value, likely = ctx.saved_tensors
        given = upstream[0].reshape(grouped.shape)
        to_value = likely.transpose(-1, -2) @ given
        by_score = (given @ value.transpose(-1, -2)).float() * likely
        by_score -= likely * by_score.sum(dim=-1, keepdim=True)
        slope = by_score.to(likely.dtype)
        to_query = ((slope @ key) * ctx.scale).view(ctx.shape)
        return to_query, slope.transpose(-1, -2) @ grouped, to_value, None, None
