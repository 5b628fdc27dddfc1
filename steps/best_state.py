"""Which epoch was best?  Scored on the held-out rows after each, and the best adapter kept.

The training loss goes on falling when the held-out loss has begun to rise. The best state is part of every
checkpoint, so that a resumed run knows it too.
"""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from steps import logs
from steps.adapter import put_back, snapshot
from steps.evaluation import Score

EXACT = 1e-6  # of an epoch: that of its last step is a whole number
WEIGHTS_FILE, SCORE_FILE = "best.safetensors", "best.json"


class BestState(TrainerCallback):  # type: ignore[misc]  # transformers is not typed
    """Scores the adapter after each epoch and remembers the best."""

    def __init__(self, model: torch.nn.Module, score: Callable[[], Score], skip: Callable[[], bool]) -> None:
        """``score`` scores the model as it is; while ``skip`` says so there is no time to."""
        self._model, self._score, self._skip = model, score, skip
        self._weights: dict[str, torch.Tensor] = {}
        self.best: Score | None = None
        self.history: list[dict[str, float]] = []  # step, epoch, loss of every scoring

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:  # noqa: ANN401, ARG002
        """Score the epoch that ended with the step of the checkpoint: the Trainer goes on behind its end."""
        epoch = state.epoch or 0.0
        ended = state.global_step > 0 and abs(epoch - round(epoch)) < EXACT
        if ended and not any(entry["step"] == state.global_step for entry in self.history) and not self._skip():
            self._take(state.global_step, round(epoch, 3))

    def on_epoch_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:  # noqa: ANN401, ARG002
        """Score the epoch."""
        if not self._skip():
            self._take(state.global_step, round(state.epoch or 0.0, 3))

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:  # noqa: ANN401, ARG002
        """Put the best state into the checkpoint."""
        folder = Path(str(args.output_dir)) / f"checkpoint-{state.global_step}"
        if self.best is not None:
            save_file(self._weights, folder / WEIGHTS_FILE)
        body = {"best": self.best and asdict(self.best), "history": self.history}
        (folder / SCORE_FILE).write_text(json.dumps(body))

    def resume(self, checkpoint: str | None) -> None:
        """Take the best state of a checkpoint over."""
        path = Path(checkpoint or "") / SCORE_FILE
        if checkpoint is None or not path.exists():
            return
        body = json.loads(path.read_text())
        self.history = body["history"]
        if body["best"] is not None:
            body["best"]["row_losses"] = tuple(body["best"]["row_losses"])
            self.best = Score(**body["best"])
            self._weights = load_file(path.with_name(WEIGHTS_FILE))

    def restore(self, step: int, epoch: float) -> Score:
        """Score the last state when no epoch ended with it; put the best state into the model and return its score."""
        if not self.history or self.history[-1]["step"] != step:
            self._take(step, epoch)
        put_back(self._model, self._weights)
        assert self.best is not None  # noqa: S101  (taken above)
        return self.best

    def _take(self, step: int, epoch: float) -> None:
        found = self._score()
        self.history.append({"step": step, "epoch": epoch, "loss": found.loss})
        logs.event("epoch_evaluated", trained_steps=step, epoch=epoch, held_out_loss=found.loss)
        if self.best is None or found.loss < self.best.loss:
            self.best = found
            self._weights = snapshot(self._model)
