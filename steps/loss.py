"""The loss where it is supervised: hidden states once, logits only where a label asks for them."""

from typing import Any

import torch
from torch.nn import functional

from steps.batches import Batch
from steps.chat import IGNORED


def token_losses(model: Any, batch: Batch, label_smoothing: float = 0.0) -> tuple[torch.Tensor, torch.Tensor]:  # noqa: ANN401
    """Return the cross entropy of every supervised token, in float32, and the token that each predicts.

    Both have one entry a supervised token, in reading order. Equal to the loss over full logits; the
    vocabulary-wide rows of prompt tokens are never computed.
    """
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    hidden = base.get_decoder()(
        input_ids=batch["input_ids"],
        position_ids=batch["position_ids"],
        attention_mask=batch["attention_mask"],
        use_cache=False,
    ).last_hidden_state
    targets = batch["labels"][:, 1:].reshape(-1)
    supervised = targets != IGNORED
    chosen = hidden[:, :-1].reshape(-1, hidden.shape[-1])[supervised]
    logits = base.get_output_embeddings()(chosen).float()
    labels = targets[supervised]
    return functional.cross_entropy(logits, labels, reduction="none", label_smoothing=label_smoothing), labels
