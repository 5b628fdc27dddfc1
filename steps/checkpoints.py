"""Checkpoints in the store, beside the training: whatever kills the run, the next one goes on from the newest.

The Trainer writes a checkpoint into the work folder; a thread publishes it as an artifact under the run's own tag,
manifest last, so that the tag always names a whole checkpoint. The finished adapter takes the tag over.
"""

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context  # what every log line carries
from pathlib import Path
from typing import Any

from peft import PeftModel, set_peft_model_state_dict
from safetensors.torch import load_file
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from steps import logs
from steps.checkpoint_files import ARTIFACT_TYPE, STATE_FILE, STEP, find_checkpoint
from steps.store import Store, publish

SECONDS_BETWEEN = (20.0, 600.0)
SHARE_OF_TIME = 0.02  # that saving may cost
NOT_PUBLISHED = ("training_args.bin",)  # a pickle that a resumed run does not read


class Checkpoints(TrainerCallback):  # type: ignore[misc]  # transformers is not typed
    """Decides when a checkpoint is due, and publishes each that is written."""

    def __init__(self, store: Store, tag: str, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin; the checkpoint that ``tag`` names is removed when there is a newer one."""
        self._store, self._tag, self._clock = store, tag, clock
        self._beside = ThreadPoolExecutor(1)
        self._job: Future[None] | None = None
        self._last = find_checkpoint(store, tag)
        self._saved_at = self._due_at = clock()
        self._by_the_clock = True

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:  # noqa: ANN401, ARG002
        """Start the clock; a ``save_strategy`` of the training config's own is kept to."""
        self._by_the_clock = str(args.save_strategy) in ("no", "SaveStrategy.NO")
        self._due_at = self._clock() + SECONDS_BETWEEN[0]

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:  # noqa: ANN401, ARG002
        """Ask for a checkpoint when one is due, and at the end: the evaluation may be killed too."""
        due = self._by_the_clock and self._clock() >= self._due_at
        if due or state.global_step >= state.max_steps:
            control.should_save = True
            self._saved_at = self._clock()

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:  # noqa: ANN401, ARG002
        """Publish the checkpoint that was just written."""
        self.settle()  # one at a time: the Trainer removes old ones
        low, high = SECONDS_BETWEEN
        now = self._clock()
        self._due_at = now + min(high, max(low, (now - self._saved_at) / SHARE_OF_TIME))
        folder = Path(str(args.output_dir)) / f"checkpoint-{state.global_step}"
        self._job = self._beside.submit(copy_context().run, self._publish, folder, state.global_step)

    def _publish(self, folder: Path, step: int) -> None:
        files = {p.name: p for p in sorted(folder.iterdir()) if p.is_file() and p.name not in NOT_PUBLISHED}
        manifest = publish(self._store, ARTIFACT_TYPE, files, {STEP: str(step)}, [self._tag])
        if self._last is not None:
            self._store.discard(self._last)
        self._last = manifest
        logs.event("checkpoint", trained_steps=step, digest=manifest.digest)

    def settle(self) -> None:
        """Wait for the checkpoint that is on its way; what went wrong with it is raised here."""
        if self._job is not None:
            self._job.result()
            self._job = None

    def close(self) -> None:
        """Settle, and end the thread."""
        try:
            self.settle()
        finally:
            self._beside.shutdown()


def state_of(checkpoint: str) -> TrainerState:
    """Return how far the run was."""
    return TrainerState.load_from_json(str(Path(checkpoint) / STATE_FILE))


def load_adapter_weights(model: PeftModel, checkpoint: str) -> None:
    """Put the adapter of a checkpoint into the model, and nothing else of it."""
    set_peft_model_state_dict(model, load_file(Path(checkpoint) / "adapter_model.safetensors"))
