"""Several processes, one a GPU: who am I among them, and what they do together.

Data parallel without a wrapper around the model: every process computes its own packs, and gradients are averaged
once an optimiser step, before they are clipped. Only the adapter has gradients, so that one message carries them all,
and whatever a layer does inside (a function of its own, activations computed again) needs no hooks.
"""

import os
from collections.abc import Iterable
from typing import Any

import torch
from torch import distributed
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments


def count() -> int:
    """Return how many processes train together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_first() -> bool:
    """Whether this process speaks for all: it scores, saves, publishes and reports."""
    return int(os.environ.get("RANK", "0")) == 0


def take_gpu() -> None:
    """Make the GPU of this process the current one."""
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))


def average_gradients(parameters: Iterable[torch.nn.Parameter]) -> None:
    """Give every process the mean of all processes' gradients; one without counts as zero."""
    trained = list(parameters)
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in trained]
    together = torch.cat([gradient.flatten() for gradient in gradients])
    distributed.all_reduce(together)
    together /= count()
    for parameter, mean in zip(trained, torch.split(together, [g.numel() for g in gradients]), strict=True):
        parameter.grad = mean.view_as(parameter)


class FirstDecides(TrainerCallback):  # type: ignore[misc]  # transformers is not typed
    """Lets every process do what the first one has decided: save, stop.  Comes behind the callbacks that decide."""

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:  # noqa: ANN401, ARG002
        """Take over the first one's wishes."""
        wishes = torch.tensor([control.should_save, control.should_training_stop], device=args.device).to(torch.uint8)
        distributed.broadcast(wishes, src=0)
        control.should_save, control.should_training_stop = (bool(wish) for wish in wishes.tolist())


class AllSaved(TrainerCallback):  # type: ignore[misc]  # transformers is not typed
    """Waits for all: each writes its own random state into the checkpoint.  Comes before what publishes it."""

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:  # noqa: ANN401, ARG002
        """Wait."""
        distributed.barrier()
