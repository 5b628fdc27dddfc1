"""One of several processes of a test's training: ``accelerate launch … -m tests.training_process JSON``."""

import json
import os
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import TrainerCallback

from presets.levers import Levers
from presets.recipe import LoraRecipe
from steps import processes
from steps.contract import Context
from steps.training import Task, train
from tests.contract.test_training import DATA, ROWS, fresh, recipe, silent, weights

PLAIN = LoraRecipe(4, 8, 0.0, "all-linear", {})


class StopAt(TrainerCallback):
    """Asks for a checkpoint and the end, as the first process may."""

    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **_):
        if state.global_step == self.step:
            control.should_save = control.should_training_stop = True


def main():
    told = json.loads(sys.argv[1])
    torch.set_num_threads(1)
    folder = Path(told["folder"])
    model = fresh(PLAIN)
    callbacks = [StopAt(told["stop_at"])] if processes.is_first() and told["stop_at"] else []
    callbacks += [processes.AllSaved(), processes.FirstDecides()]
    task = Task(ROWS, recipe(epochs=2.0), DATA, 0, folder / "checkpoints")
    figures = train(model, task, [Levers(told["packs"], told["times"])], Context(folder, silent), callbacks)
    rank = os.environ["RANK"]
    save_file({"weights": weights(model)}, folder / f"rank-{rank}.safetensors")
    if processes.is_first():
        (folder / "figures.json").write_text(json.dumps(figures))


if __name__ == "__main__":
    main()
