"""How far is the training?  Told every few seconds: steps, loss, speed, time left, memory; and a stop at NaN."""

import math
import time
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from presets.errors import DataError
from presets.levers import Levers
from steps import logs
from steps.contract import Context

REPORT_SECONDS = 2.0


class Reporter(TrainerCallback):  # type: ignore[misc]  # transformers is not typed
    """Tells how far the training is, every few seconds, and stops it when the loss is no longer a number."""

    def __init__(self, context: Context, tokens_per_step: float, way: Levers) -> None:
        self._context = context
        self._way = str(way)
        self._tokens_per_step = tokens_per_step
        self._began_at = self._reported_at = time.monotonic()
        self._first_step = 0
        self._loss: float | None = None

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:  # noqa: ANN401, ARG002
        """Start the clock; a resumed run counts its own steps."""
        self._began_at = self._reported_at = time.monotonic()
        self._first_step = state.global_step

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **values: Any) -> None:  # noqa: ANN401, ARG002
        """Keep the loss, and refuse to go on from a loss that is not a number."""
        loss = (values.get("logs") or {}).get("loss")
        if loss is None:
            return
        self._loss = float(loss)
        if not math.isfinite(self._loss):
            raise DataError(
                "LossNotFinite",
                f"The loss is {self._loss} at step {state.global_step}.",
                fix="Lower TrainingArguments.learning_rate, or raise warmup_steps.",
            )

        self._report(state)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:  # noqa: ANN401, ARG002
        """Report progress; the figures too, unless the step's loss is about to be told."""
        self._context.progress(state.global_step, state.max_steps)
        if not control.should_log:
            self._report(state)

    def _report(self, state: TrainerState) -> None:
        """Tell the figures when it is time: speed, loss, what is left."""
        now = time.monotonic()
        if now - self._reported_at < REPORT_SECONDS and state.global_step < state.max_steps:
            return
        self._reported_at = now
        done = max(1, state.global_step - self._first_step)
        seconds_per_step = (now - self._began_at) / done
        figures = {
            "trained_steps": state.global_step,
            "total_steps": state.max_steps,
            "loss": self._loss,
            "tokens_per_second": round(self._tokens_per_step / seconds_per_step, 1),
            "eta_seconds": round(seconds_per_step * (state.max_steps - state.global_step)),
            "peak_memory_bytes": peak_memory_bytes(),
            "step_cut": self._way,
        }
        logs.event("training", **figures)
        self._context.figures(figures)


def peak_memory_bytes() -> int:
    """Return the most memory that was in use so far: of the GPU where there is one, else of this process."""
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    status = Path("/proc/self/status").read_text()
    kib = next((line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")), "0")
    return int(kib) * 1024
