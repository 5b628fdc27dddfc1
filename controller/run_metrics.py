"""What a change of a Workspace's status adds to the counters: runs and their nodes by outcome, steps, verdicts.

Each is counted when it is first seen to have ended; what had ended before this controller began is not counted again.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram

from controller.durations import parse
from controller.observed_steps import ENDED

OUTCOMES, VERDICTS = (*ENDED, "NothingNew"), ("passed", "warned", "refused", "off")
STEP_SECONDS = (1, 5, 15, 60, 300, 900, 3600, 4 * 3600, 12 * 3600, 24 * 3600)


class RunMetrics:
    """Counters of runs and steps."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._runs = Counter("kaiflow_runs", "Runs that have ended", ["outcome"], registry=registry)
        self._gates = Counter("kaiflow_gate_verdicts", "Verdicts of the gate", ["verdict"], registry=registry)
        self._steps = Histogram(
            "kaiflow_step_seconds", "Time of steps that have ended", ["step", "outcome"], buckets=STEP_SECONDS,
            registry=registry,
        )  # fmt: skip
        self._node_seconds = Counter(
            "kaiflow_node_seconds", "Seconds that GPU nodes of ended runs were held", ["outcome"], registry=registry
        )
        self._node_cost = Counter(
            "kaiflow_node_cost_dollars", "The same in US dollars, where there is a price", ["outcome"],
            registry=registry,
        )  # fmt: skip
        for outcome in OUTCOMES:  # from 0 on: of a counter that begins with 1, Prometheus sees no increase
            for counter in (self._runs, self._node_seconds, self._node_cost):
                counter.labels(outcome)
        for verdict in VERDICTS:
            self._gates.labels(verdict)

    def changed(self, before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
        """Count what has ended between two statuses of one Workspace."""
        for run in _ended_runs(before, after):
            outcome = run.get("reason") if run.get("reason") == "NothingNew" else run["phase"]
            self._runs.labels(outcome).inc()
            if run.get("gate"):
                self._gates.labels(run["gate"]).inc()
            self._node_seconds.labels(outcome).inc(run.get("nodeSeconds", 0))
            self._node_cost.labels(outcome).inc(run.get("usd", 0))
        for step in _ended_steps(before, after):
            seconds = (parse(step["finishedAt"]) - parse(step["startedAt"])).total_seconds()
            self._steps.labels(step["name"], step["phase"]).observe(seconds)


def _ended_runs(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    known = {(run["name"], run.get("startedAt")) for run in before.get("runs", ()) if run["phase"] in ENDED}
    for run in after.get("runs", ()):
        if run["phase"] in ENDED and (run["name"], run.get("startedAt")) not in known:
            yield run


def _ended_steps(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    same = before.get("workflow") == after.get("workflow")
    known = {(s["name"], s.get("finishedAt")) for s in before.get("steps", ()) if same and s["phase"] in ENDED}
    for step in after.get("steps", ()):
        timed = step.get("startedAt") and step.get("finishedAt")
        if step["phase"] in ENDED and timed and (step["name"], step["finishedAt"]) not in known:
            yield step
