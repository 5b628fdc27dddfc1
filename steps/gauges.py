"""The training as Prometheus sees it: one gauge a figure, served by the step while it trains.

On a cluster on port 9090 of the pod; on one's own machine only where ``KAIFLOW_METRICS_PORT`` asks for it, and then on
the loopback address.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from prometheus_client import CollectorRegistry, Gauge, start_http_server

from presets.errors import ConfigError
from steps import logs
from steps.contract import METRICS_PORT, Request

VARIABLE = "KAIFLOW_METRICS_PORT"
LABELS = ("namespace", "workspace")
# Figure of the training event -> gauge and what it is.
GAUGES: Mapping[str, tuple[str, str]] = {
    "trained_steps": ("kaiflow_training_steps", "Optimiser steps taken, those before an interruption included"),
    "total_steps": ("kaiflow_training_steps_planned", "Optimiser steps that the training has"),
    "loss": ("kaiflow_training_loss", "Training loss of the newest step, nats a supervised token"),
    "tokens_per_second": (
        "kaiflow_training_tokens_per_second",
        "Tokens of the rows trained a second",
    ),
    "eta_seconds": ("kaiflow_training_eta_seconds", "Seconds to the last step at this speed"),
    "peak_memory_bytes": (
        "kaiflow_training_peak_memory_bytes",
        "Most memory in use so far, a GPU's where there is one",
    ),
}


class Gauges:
    """The gauges of one training; called with the figures of an event."""

    def __init__(self, namespace: str, workspace: str) -> None:
        self.registry = CollectorRegistry()
        made = {figure: Gauge(name, text, LABELS, registry=self.registry) for figure, (name, text) in GAUGES.items()}
        self._gauges = {figure: gauge.labels(namespace, workspace) for figure, gauge in made.items()}

    def __call__(self, figures: Mapping[str, Any]) -> None:
        """Show the figures; those that are not known yet stay as they are."""
        for figure, gauge in self._gauges.items():
            if figures.get(figure) is not None:
                gauge.set(figures[figure])


@contextmanager
def served(request: Request) -> Iterator[Gauges]:
    """Serve the gauges of a training while it goes on, where somebody may look.

    Raises:
        ConfigError: the port that was asked for is not a number, or is taken.
    """
    gauges = Gauges(request.workspace.namespace, request.workspace.name)
    asked = os.environ.get(VARIABLE, str(METRICS_PORT) if request.target == "cluster" else "")
    if not asked:
        yield gauges
        return
    address = "0.0.0.0" if request.target == "cluster" else "127.0.0.1"  # noqa: S104  (a pod's own)
    try:
        server, thread = start_http_server(int(asked), address, gauges.registry)
    except (ValueError, OverflowError, OSError) as error:
        raise ConfigError(
            "MetricsPortUnusable", f"{VARIABLE}={asked} cannot be served on: {error}.", fix="Name a port that is free."
        ) from error
    logs.event("metrics", port=server.server_port)
    try:
        yield gauges
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
