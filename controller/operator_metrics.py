"""The controller as Prometheus sees it: one prefix, base units, bounded labels."""

from collections.abc import Callable, Iterable
from importlib.metadata import version

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info

from controller.run_metrics import RunMetrics

STATES = ("Pending", "Running", "Succeeded", "Ready", "Failed")


class OperatorMetrics:
    """Every metric of the controller."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._states = Gauge("kaiflow_workspaces", "Workspaces by state", ["state"], registry=self.registry)
        self.looks = Histogram("kaiflow_reconcile_seconds", "Time of one look at a Workspace", registry=self.registry)
        self.errors = Counter(
            "kaiflow_reconcile_errors", "Looks that failed, and were tried again", registry=self.registry
        )
        self.writes = Counter("kaiflow_status_writes", "Statuses written", registry=self.registry)
        self._queue = Gauge("kaiflow_queue_depth", "Workspaces that wait to be looked at", registry=self.registry)
        self.leading = Gauge("kaiflow_leading", "Whether this controller is the one that works", registry=self.registry)
        self.runs = RunMetrics(self.registry)
        Info("kaiflow_build", "Version of kaiflow", registry=self.registry).info({"version": version("kaiflow")})

    def watch_queue(self, depth: Callable[[], int]) -> None:
        """Ask ``depth`` whenever the metrics are read."""
        self._queue.set_function(depth)

    def watch_states(self, states: Callable[[], Iterable[str]]) -> None:
        """Count the Workspaces of each state whenever the metrics are read."""

        def count(wanted: str) -> Callable[[], float]:
            return lambda: sum(state == wanted for state in states())

        for state in STATES:
            self._states.labels(state).set_function(count(state))
