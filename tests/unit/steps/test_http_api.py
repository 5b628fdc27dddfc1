"""What the server says of itself, beside a model that is a function."""

import asyncio
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from steps.generation import Usage
from steps.http_api import Models, ServerMetrics, build


def health(*, broken):
    generator: Any = SimpleNamespace(waiting=0, broken=broken, close=lambda: None)
    app = build(Models("base", "tuned"), generator)

    async def asked():
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://server") as client:
            return await client.get("/health")

    return asyncio.run(asked()).status_code


def test_a_gpu_that_has_failed_asks_for_another_process():
    """Every later call of this one fails, while the process lives: only the probe can see to it."""
    assert (health(broken=False), health(broken=True)) == (200, 503)


def test_a_request_that_fails_is_counted():
    metrics = ServerMetrics(lambda: 0)
    failed: Future[Usage] = Future()
    failed.set_exception(RuntimeError("out of memory"))
    with pytest.raises(RuntimeError):
        metrics.count("tuned", failed)
    assert metrics.registry.get_sample_value("kaiflow_requests_total", {"model": "tuned", "outcome": "error"}) == 1
