"""Two processes that train together, over gloo on the CPU, learn what one process learns from the same packs."""

import json
import os
import subprocess

import pytest
import torch
from safetensors.torch import load_file

from presets.levers import Levers
from steps.checkpoint_files import newest_checkpoint
from steps.contract import Context
from steps.launch import launcher
from steps.training import Task, train
from tests.contract.test_training import DATA, ROWS, fresh, recipe, silent, weights
from tests.training_process import PLAIN

pytestmark = pytest.mark.timeout(240)


def together(folder, packs, times, stop_at=0):
    """Train in two processes; return the weights of both and the figures of the first."""
    told = {"folder": str(folder), "packs": packs, "times": times, "stop_at": stop_at}
    command = [*launcher(2), "-m", "tests.training_process", json.dumps(told)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    ranks = [load_file(folder / f"rank-{rank}.safetensors")["weights"] for rank in range(2)]
    return ranks, json.loads((folder / "figures.json").read_text())


def alone(folder, packs, times):
    """Train in one process that takes as many packs a step."""
    model = fresh(PLAIN)
    task = Task(ROWS, recipe(epochs=2.0), DATA, 0, folder)
    return model, train(model, task, [Levers(packs, times)], Context(folder, silent))


@pytest.mark.parametrize("times", [1, 2])
def test_two_processes_learn_what_one_does_from_twice_as_many_packs(tmp_path, times):
    ranks, figures = together(tmp_path, 1, times)
    model, expected = alone(tmp_path / "alone", 2, times)
    assert torch.equal(*ranks)
    assert torch.allclose(ranks[0], weights(model), atol=2e-5)
    assert figures["steps"] == expected["steps"]
    assert figures["levers"]["processes"] == 2
    assert [e["loss"] for e in figures["history"]] == pytest.approx([e["loss"] for e in expected["history"]], abs=1e-4)


def test_stopped_by_the_first_both_go_on_from_their_checkpoint_to_the_same_end(tmp_path):
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    for folder in (whole, stopped):
        folder.mkdir()
    expected, _ = together(whole, 1, 1)
    _, figures = together(stopped, 1, 1, stop_at=2)
    assert figures["steps"] == 2
    assert newest_checkpoint(stopped / "checkpoints")
    found, figures = together(stopped, 1, 1)
    assert torch.equal(found[0], expected[0])
    assert figures["steps"] == figures["total_steps"]
