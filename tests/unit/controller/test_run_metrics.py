"""What a change of a status counts, once."""

from itertools import pairwise

from prometheus_client import CollectorRegistry

from controller.run_metrics import RunMetrics

BEGAN, OVER = "2026-11-23T10:00:00Z", "2026-11-23T10:01:30Z"


def step(phase="Succeeded"):
    ended = {"finishedAt": OVER} if phase != "Running" else {}
    return {"name": "tune", "phase": phase, "startedAt": BEGAN, **ended}


def run(phase="Succeeded", **more):
    return {"name": "ws-1", "phase": phase, "startedAt": BEGAN, **more}


def counted(*statuses):
    registry = CollectorRegistry()
    metrics = RunMetrics(registry)
    for before, after in pairwise(statuses):
        metrics.changed(before, after)

    def value(name, **labels):
        return registry.get_sample_value(name, labels)

    return value


def test_a_run_its_steps_its_node_and_its_gate_are_counted_when_they_have_ended():
    running = {"workflow": "ws-1", "steps": [step("Running")], "runs": [run("Running")]}
    ended = {"workflow": "ws-1", "steps": [step()], "runs": [run(gate="passed", nodeSeconds=120, usd=0.5)]}
    value = counted({}, running, ended, {**ended, "endpoint": "http://x"})
    assert value("kaiflow_runs_total", outcome="Succeeded") == 1
    assert value("kaiflow_gate_verdicts_total", verdict="passed") == 1
    assert value("kaiflow_node_seconds_total", outcome="Succeeded") == 120
    assert value("kaiflow_node_cost_dollars_total", outcome="Succeeded") == 0.5
    assert value("kaiflow_step_seconds_count", step="tune", outcome="Succeeded") == 1
    assert value("kaiflow_step_seconds_sum", step="tune", outcome="Succeeded") == 90


def test_a_run_that_found_nothing_new_is_an_outcome_of_its_own():
    value = counted({}, {"runs": [run(reason="NothingNew")]})
    assert value("kaiflow_runs_total", outcome="NothingNew") == 1
    assert value("kaiflow_runs_total", outcome="Succeeded") == 0


def test_failures_are_told_by_their_phase():
    runs = [run("Failed", reason="ContainerOOMKilled")]
    value = counted({}, {"workflow": "ws-1", "steps": [step("Failed")], "runs": runs})
    assert value("kaiflow_runs_total", outcome="Failed") == 1
    assert value("kaiflow_step_seconds_count", step="tune", outcome="Failed") == 1
