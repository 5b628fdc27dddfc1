"""Cross entropy over the output head, in pieces: the logits of all supervised tokens never exist at once.

The head is frozen, so the gradient with respect to the hidden states is all that is wanted; it is taken in the
forward pass while a piece's probabilities are at hand, and nothing is kept but one vector a token (the idea of
Liger's fused linear cross entropy and of Cut Cross-Entropy, arXiv:2411.09009).
"""

from typing import Any

import torch
from torch.nn import functional

PIECE_LOGITS = 1 << 22  # of one piece: 16 MiB in float32, several times over
ROW_STEP = 16  # the number of rows comes in steps: oneDNN compiles and keeps code for every shape that it meets


def supervised_losses(base: Any, hidden: torch.Tensor, labels: torch.Tensor, label_smoothing: float) -> torch.Tensor:  # noqa: ANN401
    """Return the cross entropy, in float32, of each of the n rows of ``hidden`` (n, width) against ``labels`` (n)."""
    head: Any = base.get_output_embeddings()
    config = base.config
    scale = getattr(config, "logit_scale", None) or 1 / (getattr(config, "logits_scaling", None) or 1)
    cap = getattr(config, "final_logit_softcapping", None)
    if cap is None and _is_frozen_matrix(head):
        scaled = hidden * scale if scale != 1 else hidden
        found: torch.Tensor = _Pieces.apply(scaled, head.weight, labels, label_smoothing)  # type: ignore[no-untyped-call]
        return found
    logits = head(hidden).float() * scale
    logits = logits if cap is None else cap * torch.tanh(logits / cap)
    return functional.cross_entropy(logits, labels, reduction="none", label_smoothing=label_smoothing)


def _is_frozen_matrix(head: Any) -> bool:  # noqa: ANN401
    return type(head) is torch.nn.Linear and not head.weight.requires_grad and getattr(head, "bias", None) is None


class _Pieces(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401
        hidden: torch.Tensor,
        weight: torch.Tensor,
        labels: torch.Tensor,
        smoothing: float,
    ) -> torch.Tensor:
        count = len(labels)
        more = -count % ROW_STEP
        rows = functional.pad(hidden.to(weight.dtype), (0, 0, 0, more))
        labels = functional.pad(labels, (0, more))
        losses = torch.empty(len(labels), dtype=torch.float32, device=hidden.device)
        gradient = torch.empty_like(rows) if ctx.needs_input_grad[0] else None
        length = max(ROW_STEP, PIECE_LOGITS // len(weight) // ROW_STEP * ROW_STEP)
        for start in range(0, len(labels), length):
            piece = slice(start, start + length)
            answers = labels[piece]
            logits = (rows[piece] @ weight.t()).float()
            losses[piece] = functional.cross_entropy(logits, answers, reduction="none", label_smoothing=smoothing)
            if gradient is not None:
                spread = torch.softmax(logits, dim=-1)
                spread -= smoothing / spread.shape[-1]
                spread[torch.arange(len(answers), device=spread.device), answers] -= 1 - smoothing
                gradient[piece] = spread.to(weight.dtype) @ weight
        if gradient is not None:
            ctx.save_for_backward(gradient[:count])
        ctx.dtype = hidden.dtype
        return losses[:count]

    @staticmethod
    def backward(ctx: Any, *upstream: torch.Tensor) -> Any:  # noqa: ANN401
        (gradient,) = ctx.saved_tensors
        return (gradient * upstream[0][:, None]).to(ctx.dtype), None, None, None
