"""``kaiflow controller``: the operator as a process — elected, watched over, ended in order.

``/healthz``: the loop turns and the API server is heard. ``/readyz``: it serves its page, leading or waiting to lead.
``/metrics``: Prometheus.
"""

import asyncio
import os
import signal
import socket
import time
import uuid
from dataclasses import dataclass

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from controller.cluster_operator import Operator, Settings
from controller.kube_api import Api
from controller.lease import Lease, LeaseLostError, Pace
from controller.operator_metrics import OperatorMetrics
from steps import logs

LEASE = "kaiflow-controller"
DEAF_SECONDS = 300.0  # a bookmark comes every minute


def lease_name(namespace: str) -> str:
    """Return the Lease of those that look at one namespace, or, where it is empty, at all of them."""
    return f"{LEASE}-{namespace}" if namespace else LEASE


@dataclass(frozen=True, slots=True)
class ProcessOptions:
    """How the process runs."""

    port: int  # of health and metrics; 0: a free one
    lease_namespace: str  # empty: the pod's own
    pace: Pace


async def run_controller(settings: Settings, options: ProcessOptions) -> int:
    """Work until SIGTERM or SIGINT; return the exit code: 1 when the lease was lost."""
    metrics = OperatorMetrics()
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    async with await Api.connect() as api:
        operator = Operator(api, settings, metrics)
        page = await _serve(operator, metrics, options.port)
        holder = f"{os.environ.get('HOSTNAME') or socket.gethostname()}-{uuid.uuid4().hex[:8]}"
        lease = Lease(
            api, options.lease_namespace or api.namespace, lease_name(settings.namespace), holder, options.pace
        )
        working = asyncio.create_task(lease.lead(lambda: _led(operator, metrics)))
        ended = asyncio.create_task(stopping.wait())
        await asyncio.wait([working, ended], return_when=asyncio.FIRST_COMPLETED)
        working.cancel()
        outcome = (await asyncio.gather(working, return_exceptions=True))[0]
        await page.cleanup()
    if isinstance(outcome, LeaseLostError):
        logs.warning("lease_lost", holder=holder)
        return 1  # the pod starts again, as one that waits
    if isinstance(outcome, Exception):
        raise outcome
    return 0


async def _led(operator: Operator, metrics: OperatorMetrics) -> None:
    metrics.leading.set(1)
    try:
        await operator.run()
    finally:
        metrics.leading.set(0)


async def _serve(operator: Operator, metrics: OperatorMetrics, port: int) -> web.AppRunner:
    began = time.monotonic()

    async def healthy(_: web.Request) -> web.Response:
        leading = metrics.registry.get_sample_value("kaiflow_leading") == 1
        deaf = leading and time.monotonic() - began > DEAF_SECONDS and operator.heard_seconds_ago > DEAF_SECONDS
        return web.Response(status=500 if deaf else 200, text="the API server is silent" if deaf else "ok")

    async def ready(_: web.Request) -> web.Response:
        return web.Response(text="ok")

    async def numbers(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(metrics.registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    app = web.Application()
    app.add_routes([web.get("/healthz", healthy), web.get("/readyz", ready), web.get("/metrics", numbers)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, None, port)
    await site.start()
    address = runner.addresses[0]
    logs.event("listening", port=address[1])
    return runner
