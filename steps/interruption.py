"""SIGTERM during the training: one more step, a checkpoint, and an end that asks to be tried again."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from presets.errors import TryAgainError
from steps import logs


class Interruption(TrainerCallback):  # type: ignore[misc]  # transformers is not typed
    """Stops the training at the end of the step in which the node is taken away."""

    def __init__(self, asked_elsewhere: Callable[[], bool] = lambda: False) -> None:
        """``asked_elsewhere`` tells of a SIGTERM that another process has taken."""
        self._signalled = False
        self._asked_elsewhere = asked_elsewhere

    @property
    def asked(self) -> bool:
        """Whether the training is to end."""
        return self._signalled or self._asked_elsewhere()

    @contextmanager
    def heeded(self) -> Iterator[None]:
        """Take SIGTERM as a wish while the training goes on; afterwards it is what it was."""
        before = signal.signal(signal.SIGTERM, self._on_sigterm)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)

    def _on_sigterm(self, _signal: int, _frame: FrameType | None) -> None:
        self._signalled = True

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:  # noqa: ANN401, ARG002
        """Save and stop when asked to."""
        if self.asked:
            logs.warning("terminated", signal="SIGTERM", trained_steps=state.global_step)
            control.should_save = True
            control.should_training_stop = True

    def require_none(self, step: int, total: int) -> None:
        """Return when nothing interrupted the training.

        Raises:
            TryAgainError: something did, were it in the last step; the checkpoint is in the store.
        """
        if self.asked:
            raise TryAgainError(
                "Interrupted",
                f"The training was stopped at step {step} of {total}, and a checkpoint saved.",
                fix="It goes on from there by itself.",
            )
