"""How much time may the training take?  It stops while there is some left to compare and pack what it has.

Two limits: the user's own over all lives of the run, which the checkpoints carry on, and the pod's deadline.
"""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from presets.recipe import BudgetRecipe
from steps import logs

FILE = "spent.json"
MAX_HOURS, DEADLINE = "max-hours", "deadline"
ENDING = 1.3  # of what came before the first step
DEADLINE_GRACE_SECONDS = 600.0  # of a pod, whose time begins before its image is pulled


class Budget(TrainerCallback):  # type: ignore[misc]  # transformers is not typed
    """Stops the training at the end of the step after which there is just time enough for the end."""

    def __init__(
        self,
        recipe: BudgetRecipe,
        began: float,
        clock: Callable[[], float] = time.monotonic,
        loading_from: float | None = None,
    ) -> None:
        """Begin; ``began`` is when this life did, by ``clock``, and ``loading_from`` when its weights had come."""
        self._recipe, self._began, self._clock = recipe, began, clock
        self._loading_from = began if loading_from is None else loading_from
        self._spent_before = self._reserve = 0.0
        self.reached = ""  # which limit has ended the training

    def begin_training(self) -> None:
        """Learn from what lies behind what the end will take: it scores as the base was, and loads the model again."""
        self._reserve = ENDING * (self._clock() - self._loading_from)

    def resume(self, checkpoint: str | None) -> None:
        """Count what the run's earlier lives have spent."""
        path = Path(checkpoint or "") / FILE
        if checkpoint is None or not path.exists():
            return
        body = json.loads(path.read_text())
        self._spent_before = float(body["seconds"])
        stopped_at, limit = body["stopped_at"], self._recipe.max_seconds
        if stopped_at is not None and limit is not None and limit <= stopped_at:
            self.reached = MAX_HOURS  # it ended the life before, and is no larger now

    @property
    def spent_seconds(self) -> float:
        """Seconds of all lives, those between a life's last checkpoint and its end left out."""
        return self._spent_before + self._clock() - self._began

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:  # noqa: ANN401, ARG002
        """Save and stop when the time is up."""
        if state.global_step < state.max_steps and self._over():
            self._stop(state, control)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:  # noqa: ANN401, ARG002
        """Put what was spent into the checkpoint."""
        folder = Path(str(args.output_dir)) / f"checkpoint-{state.global_step}"
        stopped_at = self._recipe.max_seconds if self.reached == MAX_HOURS else None
        (folder / FILE).write_text(json.dumps({"seconds": round(self.spent_seconds, 1), "stopped_at": stopped_at}))

    def _over(self) -> bool:
        here = self._clock() - self._began + self._reserve
        limit = self._recipe.max_seconds
        if limit is not None and here + self._spent_before > limit:
            self.reached = MAX_HOURS
        elif here > self._recipe.deadline_seconds - DEADLINE_GRACE_SECONDS:
            self.reached = DEADLINE
        return bool(self.reached)

    def _stop(self, state: TrainerState, control: TrainerControl) -> None:
        logs.warning("budget_reached", limit=self.reached, trained_steps=state.global_step,
                     total_steps=state.max_steps, spent_seconds=round(self.spent_seconds))  # fmt: skip
        control.should_save = True
        control.should_training_stop = True
