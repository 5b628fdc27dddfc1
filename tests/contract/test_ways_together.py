"""Several processes, and a way to cut a step that does not fit: the next is tried by all, the last is the end."""

from types import SimpleNamespace

import pytest
import torch

from presets.errors import ConfigError
from presets.recipe import BudgetRecipe
from steps import training_job
from steps.budget import Budget
from steps.interruption import Interruption
from steps.training_job import Job, Prepared
from tests.contract.test_training import DATA, recipe


@pytest.fixture
def full(monkeypatch, tmp_path):
    def train(_model, _task, ways, *_):
        raise ConfigError("InsufficientMemory", f"{len(list(ways))} tried", fix="") from torch.OutOfMemoryError("full")

    monkeypatch.setattr(training_job, "train", train)
    parts = {"training": recipe(), "data": DATA}
    request = SimpleNamespace(part=lambda name, _: parts[name])
    job = Job(request, SimpleNamespace(work=tmp_path), "key")  # type: ignore[arg-type]
    tokenizer = SimpleNamespace(pad_token_id=0)
    prepared = Prepared(None, tokenizer, None, ["first", "last"])  # type: ignore[arg-type,list-item]
    rows = SimpleNamespace(train=[])
    budget = Budget(BudgetRecipe(None, 1000), 0.0)
    return lambda attempt: training_job._learn(job, rows, prepared, [], Interruption(), budget, attempt)  # type: ignore[arg-type]


def test_while_there_is_another_way_memory_is_what_is_told(full):
    with pytest.raises(torch.OutOfMemoryError):
        full(0)


@pytest.mark.parametrize("attempt", [1, None], ids=["the last of several processes", "one process, which tried all"])
def test_when_there_is_none_the_remedy_is(full, attempt):
    with pytest.raises(ConfigError):
        full(attempt)
