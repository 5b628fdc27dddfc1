"""The training ends in time: over all lives of a run, or within a pod's deadline, with a checkpoint to go on from."""

import json
from pathlib import Path

import pytest
from transformers import TrainerCallback

from presets.recipe import BudgetRecipe
from steps.budget import DEADLINE, DEADLINE_GRACE_SECONDS, FILE, MAX_HOURS, Budget
from steps.checkpoint_files import newest_checkpoint
from tests.contract.test_training import fresh, recipe, run

LONG = 172800


def test_the_time_that_the_weights_took_to_come_is_spent_and_no_measure_of_the_end(tmp_path):
    clock = Ticking()
    budget = Budget(BudgetRecipe(100.0, LONG), clock.now - 30.0, clock, loading_from=clock.now)
    clock.now += 10.0
    budget.begin_training()
    figures = run(fresh(), recipe(), tmp_path, [clock, budget])
    assert figures["steps"] == 5  # 30 + 10 + 5 * 10 + 13 is more than 100; with 4 it was 93
    assert budget.reached == MAX_HOURS


class Ticking(TrainerCallback):
    """A clock that a step moves on by ten seconds."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now

    def on_step_end(self, args, state, control, **_):
        self.now += 10


def life(folder, budget_seconds, deadline=LONG, before_training=0.0):
    """Train until the end or the budget; return the figures and the budget."""
    clock = Ticking()
    budget = Budget(BudgetRecipe(budget_seconds, deadline), clock.now, clock)
    budget.resume(newest_checkpoint(folder))
    clock.now += before_training
    budget.begin_training()
    take_no_step = bool(budget.reached)
    figures = run(fresh(), recipe(), folder, [clock, budget], take_no_step=take_no_step)
    return figures, budget


def test_without_a_budget_all_steps_are_taken(tmp_path):
    figures, budget = life(tmp_path, None)
    assert figures["steps"] == figures["total_steps"]
    assert not budget.reached


def test_the_budget_leaves_time_for_the_end(tmp_path):
    figures, budget = life(tmp_path, 100.0, before_training=20.0)  # the end takes 1.3 times as long: 26
    assert budget.reached == MAX_HOURS
    assert figures["steps"] == 6  # 20 + 6 * 10 + 26 is more than 100; with 5 it was 96
    assert newest_checkpoint(tmp_path)


def test_a_larger_budget_goes_on_and_counts_what_was_spent(tmp_path):
    first, _ = life(tmp_path, 50.0)
    assert first["steps"] == 6
    checkpoint = newest_checkpoint(tmp_path)
    assert checkpoint is not None
    assert json.loads((Path(checkpoint) / FILE).read_text()) == {"seconds": 60.0, "stopped_at": 50.0}
    second, budget = life(tmp_path, 90.0)
    assert second["steps"] == 10  # 60 are spent, four steps more are over 90
    assert budget.reached == MAX_HOURS


@pytest.mark.parametrize("limit", [50.0, 40.0])
def test_the_same_budget_or_a_smaller_one_takes_no_step_more(tmp_path, limit):
    first, _ = life(tmp_path, 50.0)
    second, budget = life(tmp_path, limit)
    assert second["steps"] == first["steps"]
    assert second["total_steps"] == first["total_steps"]
    assert budget.reached == MAX_HOURS


def test_a_pods_deadline_ends_it_too_and_the_next_pod_goes_on(tmp_path):
    first, budget = life(tmp_path, None, deadline=int(DEADLINE_GRACE_SECONDS) + 50)
    assert budget.reached == DEADLINE
    assert first["steps"] == 6
    second, budget = life(tmp_path, None)
    assert second["steps"] == second["total_steps"]
    assert not budget.reached


def test_a_budget_that_ends_with_the_last_step_has_not_cut_anything(tmp_path):
    whole, _ = life(tmp_path / "whole", None)
    figures, budget = life(tmp_path / "exact", whole["total_steps"] * 10.0 - 1)
    assert figures["steps"] == figures["total_steps"]
    assert not budget.reached
