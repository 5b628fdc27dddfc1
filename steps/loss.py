"""The loss where it is supervised: hidden states once, logits only where a label asks for them, in pieces."""

from typing import Any

import torch

from steps.batches import Batch
from steps.chat import IGNORED
from steps.segment_attention import in_use
from steps.supervised_head import supervised_losses

NO_MASK = (1, 1, 1, 1)  # what stands for a mask where segments say more: four dimensions are passed on as they are


def token_losses(model: Any, batch: Batch, label_smoothing: float = 0.0) -> tuple[torch.Tensor, torch.Tensor]:  # noqa: ANN401
    """Return the cross entropy of every supervised token, in float32, and the token that each predicts.

    Both have one entry a supervised token, in the order of the batch. Equal to the loss over full logits; the
    vocabulary-wide rows of prompt tokens are never computed.
    """
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    mask = batch.get("attention_mask")
    if mask is None and not in_use(base):
        raise ValueError("the batch has segments, and the model's attention knows none: collate as dense")
    extra = {"segments": batch["segments"]} if mask is None else {}
    hidden = base.get_decoder()(
        input_ids=batch["input_ids"],
        position_ids=batch["position_ids"],
        attention_mask=mask if mask is not None else torch.ones(NO_MASK, dtype=torch.bool, device=base.device),
        use_cache=False,
        **extra,
    ).last_hidden_state
    targets = batch["labels"][:, 1:].reshape(-1)
    supervised = torch.nonzero(targets != IGNORED).flatten()
    chosen = hidden[:, :-1].reshape(-1, hidden.shape[-1]).index_select(0, supervised)
    return supervised_losses(base, chosen, targets[supervised], label_smoothing), targets[supervised]
