"""A training that is killed, interrupted or short of memory ends as the one that never was; the best epoch is kept."""

import os
import signal
import socket
from pathlib import Path
from urllib.request import urlopen

import pytest
import torch
from structlog.testing import capture_logs
from transformers import AutoConfig, AutoModelForCausalLM, TrainerCallback

from presets.errors import ConfigError, TryAgainError
from presets.levers import Levers, first, ladder
from presets.recipe import DataRecipe, LoraRecipe, TrainingRecipe
from steps import checkpoint_files, segment_attention, training
from steps.adapter import add_adapter, trainable
from steps.best_state import BestState
from steps.checkpoint_files import newest_checkpoint, restore
from steps.checkpoints import Checkpoints
from steps.contract import Context, Request, WorkspaceRef
from steps.evaluation import Score
from steps.gauges import GAUGES, served
from steps.interruption import Interruption
from steps.oci_layout import LayoutStore
from steps.training import Task, train
from tests.contract.test_levers import SMALL, chat_rows

ROWS = chat_rows()
DATA = DataRecipe((), None, (), None, None, None, None, None, True, 42, 0.1)
LORA = LoraRecipe(4, 8, 0.1, "all-linear", {})  # with dropout: the random state must be resumed too


def recipe(**changes):
    values = {
        "epochs": 3.0, "max_steps": -1, "batch_size": 1, "gradient_accumulation_steps": 1, "learning_rate": 1e-2,
        "scheduler": "linear", "warmup": 0.05, "max_length_tokens": 96, "packing": True, "assistant_only_loss": True,
        "gradient_checkpointing": False, "seed": 42, "extra": {"max_grad_norm": 1.0},
    }  # fmt: skip
    return TrainingRecipe(**{**values, **changes})


def fresh(lora=LORA):
    torch.manual_seed(0)
    segment_attention.register()
    config = AutoConfig.for_model("llama", **SMALL, num_key_value_heads=2)
    base = AutoModelForCausalLM.from_config(config, attn_implementation=segment_attention.NAME).requires_grad_(False)
    return add_adapter(base, lora, seed=1)


def silent(done: int, total: int) -> None:
    """Nobody listens."""


def weights(model):
    return torch.cat([p.detach().flatten() for p in trainable(model)])


def trained(folder, callbacks=(), asked=None, lora=LORA):
    model = fresh(lora)
    return weights(model), run(model, asked or recipe(), folder, callbacks)


def run(model, asked, folder, callbacks=(), **task):
    return train(
        model,
        Task(ROWS, asked, DATA, 0, folder, **task),
        list(ladder(first(asked))),
        Context(folder, silent),
        callbacks,
    )


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("undisturbed"))


def test_a_run_is_repeatable_bit_for_bit(undisturbed, tmp_path):
    found, figures = trained(tmp_path)
    assert torch.equal(found, undisturbed[0])
    assert figures["history"] == undisturbed[1]["history"]


class At(TrainerCallback):
    """Does something at the end of one step."""

    def __init__(self, step, do):
        self.step, self.do = step, do

    def on_step_end(self, args, state, control, **_):
        if state.global_step == self.step:
            self.do()


class Killed(BaseException):
    pass


def kill():
    raise Killed


@pytest.mark.parametrize("first", range(1, 8))
def test_killed_twice_at_any_step_the_weights_are_those_of_the_undisturbed_run(undisturbed, tmp_path, first):
    store = LayoutStore(tmp_path / "store")
    for life, step in enumerate((first, first + 5)):
        folder = tmp_path / str(life)  # a new node has an empty disk
        restore(store, store.find("run"), folder)
        saving = Checkpoints(store, "run")
        with pytest.raises(Killed):
            trained(folder, [saving, At(step, kill)], recipe(extra={"save_strategy": "steps", "save_steps": 2}))
        saving.close()
    last = tmp_path / "last"
    used = restore(store, store.find("run"), last)
    assert used is not None
    assert 0 < int(used.annotations[checkpoint_files.STEP]) <= first + 5
    found, figures = trained(last, asked=recipe(extra={"save_strategy": "no"}))
    assert torch.equal(found, undisturbed[0])
    assert figures["history"] == undisturbed[1]["history"]
    assert figures["train_loss"] == undisturbed[1]["train_loss"]


class AtTheEndDo(TrainerCallback):
    def __init__(self, do):
        self.do = do

    def on_train_end(self, args, state, control, **_):
        self.do()


@pytest.mark.parametrize("asked", [recipe(), recipe(max_steps=7)])  # at the end of an epoch, and in the middle of one
def test_killed_behind_its_last_step_the_run_takes_no_step_more(tmp_path, asked):
    expected, figures = trained(tmp_path / "undisturbed", asked=asked)
    store = LayoutStore(tmp_path / "store")
    saving = Checkpoints(store, "run")
    with pytest.raises(Killed):
        trained(tmp_path / "first", [saving, AtTheEndDo(kill)], asked)
    saving.close()
    restore(store, store.find("run"), tmp_path / "second")
    found, again = trained(tmp_path / "second", asked=asked)
    assert torch.equal(found, expected)
    timeless = [
        {k: v for k, v in f.items() if k in ("steps", "epochs", "history", "train_loss")} for f in (figures, again)
    ]
    assert timeless[0] == timeless[1]


def test_sigterm_ends_the_step_saves_and_asks_to_be_tried_again(undisturbed, tmp_path):
    store, interruption = LayoutStore(tmp_path / "store"), Interruption()
    saving = Checkpoints(store, "run")
    with interruption.heeded():
        terminate = At(3, lambda: os.kill(os.getpid(), signal.SIGTERM))
        _, figures = trained(tmp_path / "first", [terminate, interruption, saving])
    saving.close()
    assert figures["steps"] == 3
    with pytest.raises(TryAgainError, match="stopped at step 3 of") as told:
        interruption.require_none(figures["steps"], figures["total_steps"])
    assert told.value.exit_code == 75
    restore(store, store.find("run"), tmp_path / "second")
    found, _ = trained(tmp_path / "second")
    assert torch.equal(found, undisturbed[0])


def test_checkpoints_come_by_the_clock_and_at_the_end_and_only_the_last_is_kept(tmp_path):
    now = [0.0]
    store = LayoutStore(tmp_path / "store")

    class Ticking(TrainerCallback):
        def on_step_end(self, args, state, control, **_):
            now[0] += 8

    class Counting(Checkpoints):
        saved: list[int] = []

        def on_save(self, args, state, control, **_):
            self.saved.append(state.global_step)
            super().on_save(args, state, control)

    saving = Counting(store, "run", clock=lambda: now[0])
    _, figures = trained(tmp_path / "work", [Ticking(), saving])
    saving.close()
    assert saving.saved == [*range(3, figures["steps"], 3), figures["steps"]]
    manifest = store.find("run")
    assert manifest is not None
    assert manifest.annotations[checkpoint_files.STEP] == str(figures["steps"])
    blobs = {blob.name for blob in (tmp_path / "store/blobs/sha256").iterdir()}
    assert len(blobs) == len(manifest.layers) + 2  # and its config and itself
    assert not any("training_args" in layer.annotations.values() for layer in manifest.layers)


def test_a_damaged_checkpoint_is_left_and_the_run_begins_anew(undisturbed, tmp_path):
    store = LayoutStore(tmp_path / "store")
    saving = Checkpoints(store, "run")
    with pytest.raises(Killed):
        trained(tmp_path / "a", [saving, At(5, kill)], recipe(extra={"save_strategy": "steps", "save_steps": 2}))
    saving.close()
    manifest = store.find("run")
    assert manifest is not None
    largest = max(manifest.layers, key=lambda layer: layer.size)
    path = tmp_path / "store/blobs/sha256" / largest.digest.removeprefix("sha256:")
    path.chmod(0o644)
    path.write_bytes(bytes(largest.size))
    assert restore(store, manifest, tmp_path / "b") is None
    assert newest_checkpoint(tmp_path / "b") is None
    assert torch.equal(trained(tmp_path / "b")[0], undisturbed[0])


def test_what_does_not_fit_is_cut_smaller_at_the_same_step(tmp_path, monkeypatch):
    plain = LoraRecipe(4, 8, 0.0, "all-linear", {})  # cut another way, dropout would draw other numbers
    four = recipe(batch_size=4)
    expected, figures = trained(tmp_path / "a", asked=four, lora=plain)
    seen = []

    def hungry(model, inputs, *arguments):
        lines, layer = len(inputs["input_ids"]), model.get_base_model().model.layers[0]
        seen.append((lines, layer.gradient_checkpointing))
        if not layer.gradient_checkpointing:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return token_losses(model, inputs, *arguments)

    token_losses = training.token_losses
    monkeypatch.setattr(training, "token_losses", hungry)
    found, smaller_figures = trained(tmp_path / "b", asked=four, lora=plain)
    assert list(dict.fromkeys(seen)) == [(4, False), (2, False), (1, False), (1, True)]
    assert smaller_figures["levers"] == {
        "packs": 1, "accumulation_steps": 4, "recompute_every": 4, "dequantise_once": False, "processes": 1,
    }  # fmt: skip
    assert smaller_figures["steps"] == figures["steps"]
    assert torch.allclose(found, expected, atol=1e-4)


def test_the_figures_of_a_training_are_scraped_while_it_goes_on(tmp_path, monkeypatch):
    ref = WorkspaceRef(name="tuned", namespace="team", uid="1", revision="r")
    request = Request(verb="tune", workspace=ref, store="", target="local", recipe={}, inputs={})
    monkeypatch.setenv("KAIFLOW_METRICS_PORT", "0")
    said: list[str] = []
    model = fresh()
    with capture_logs() as events, served(request) as gauges:

        def scrape():
            port = next(e["port"] for e in events if e["event"] == "metrics")
            said.append(urlopen(f"http://127.0.0.1:{port}/metrics").read().decode())

        context = Context(tmp_path, silent, gauges)
        end = train(model, Task(ROWS, recipe(), DATA, 0, tmp_path), [Levers(1, 1)], context, [AtTheEndDo(scrape)])
    where = '{namespace="team",workspace="tuned"}'
    values = dict(line.rsplit(" ", 1) for line in said[0].splitlines() if where in line)
    assert float(values[f"kaiflow_training_steps{where}"]) == end["steps"] == end["total_steps"]
    assert float(values[f"kaiflow_training_loss{where}"]) == end["history"][-1]["loss"]
    assert float(values[f"kaiflow_training_tokens_per_second{where}"]) > 0
    assert set(values) == {f"{name}{where}" for name, _ in GAUGES.values()}


def test_a_port_that_is_taken_is_said(monkeypatch):
    ref = WorkspaceRef(name="tuned", namespace="team", uid="1", revision="r")
    request = Request(verb="tune", workspace=ref, store="", target="local", recipe={}, inputs={})
    with socket.create_server(("127.0.0.1", 0)) as taken:
        monkeypatch.setenv("KAIFLOW_METRICS_PORT", str(taken.getsockname()[1]))
        with pytest.raises(ConfigError, match="in use"), served(request):
            pass


def test_what_never_fits_is_said_in_words(tmp_path, monkeypatch):
    def hungry(*_):
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")

    monkeypatch.setattr(training, "token_losses", hungry)
    with pytest.raises(ConfigError, match="does not fit into memory") as told:
        trained(tmp_path)
    assert told.value.reason == "InsufficientMemory"


class KilledAtTheEndOfAnEpoch(TrainerCallback):
    """Behind the checkpoint of its last step, and before it is scored."""

    def on_epoch_end(self, args, state, control, **_):
        raise Killed


def test_an_epoch_whose_scoring_was_cut_off_is_scored_when_the_run_goes_on(tmp_path):
    one = fresh()
    steps = recipe(extra={"save_strategy": "steps", "save_steps": 1})
    with pytest.raises(Killed):
        best = BestState(one, scores([]), lambda: False)
        run(one, steps, tmp_path / "run", [KilledAtTheEndOfAnEpoch(), best])
    second = fresh()
    again = BestState(second, scores([1.0, 1.5, 1.2]), lambda: False)
    again.resume(newest_checkpoint(tmp_path / "run"))
    figures = run(second, steps, tmp_path / "run", [again])
    assert again.restore(figures["steps"], figures["epochs"]).loss == 1.0
    assert [(entry["epoch"], entry["loss"]) for entry in again.history] == [(1.0, 1.0), (2.0, 1.5), (3.0, 1.2)]


@pytest.mark.parametrize("torn", ["trainer_state.json", "optimizer.pt", "rng_state.pth", "adapter_model.safetensors"])
@pytest.mark.parametrize("cut", ["empty", "half"])
def test_a_checkpoint_that_a_power_cut_has_torn_is_none(tmp_path, torn, cut):
    store = LayoutStore(tmp_path / "store")
    saving = Checkpoints(store, "run")
    run(fresh(), recipe(max_steps=3, extra={"save_strategy": "steps", "save_steps": 3}), tmp_path / "run", [saving])
    saving.settle()
    whole = newest_checkpoint(tmp_path / "run")
    assert whole is not None
    path = Path(whole) / torn
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2 if cut == "half" else 0])
    assert newest_checkpoint(tmp_path / "run") is None
    assert restore(store, store.find("run"), tmp_path / "run") is not None  # the store's copy is whole
    assert newest_checkpoint(tmp_path / "run") == whole


def scores(losses):
    waiting = iter(losses)
    return lambda: Score(next(waiting), 0.0, (1.0, 2.0), 2)


def test_the_best_epoch_is_kept_though_training_went_on(tmp_path):
    model, states = fresh(), []
    told = scores([2.0, 1.0, 1.5])

    def score():
        states.append(weights(model).clone())
        return told()

    best = BestState(model, score, lambda: False)
    figures = run(model, recipe(), tmp_path, [best])
    assert best.restore(figures["steps"], figures["epochs"]).loss == 1.0
    assert torch.equal(weights(model), states[1])
    assert [entry["loss"] for entry in best.history] == [2.0, 1.0, 1.5]


def test_a_resumed_run_remembers_the_best_epoch_of_its_former_life(tmp_path):
    one = fresh()
    best = BestState(one, scores([1.0, 1.5]), lambda: False)
    steps = recipe(extra={"save_strategy": "steps", "save_steps": 1})
    with pytest.raises(Killed):
        per_epoch = trained(tmp_path / "count", asked=recipe(epochs=1.0))[1]["steps"]
        killing = At(per_epoch + 2, kill)
        run(one, steps, tmp_path / "run", [best, killing])
    second = fresh()
    again = BestState(second, scores([1.5, 1.2]), lambda: False)
    again.resume(newest_checkpoint(tmp_path / "run"))
    figures = run(second, steps, tmp_path / "run", [again])
    assert again.restore(figures["steps"], figures["epochs"]).loss == 1.0
    assert [entry["loss"] for entry in again.history] == [1.0, 1.5, 1.2]
