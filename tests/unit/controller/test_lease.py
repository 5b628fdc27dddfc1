"""Who leads stops before another may begin, whatever the server does."""

import asyncio
import time

import pytest

from controller.kube_api import Api
from controller.lease import Lease, LeaseLostError, Pace


class Server(Api):
    """Holds one Lease; answers until it falls silent."""

    def __init__(self):
        self.lease, self.silent = None, False

    async def _ask(self, method, path, query=None, body=None, headers=None, *, missing_ok=False):
        if self.silent:
            await asyncio.sleep(60)
        if method != "GET":
            self.lease = body
        return self.lease


def test_who_cannot_renew_stops_at_the_deadline_and_not_an_attempt_later():
    server, pace = Server(), Pace(lease_seconds=1.5, renew_seconds=1.0, retry_seconds=0.15)
    ended = []

    async def work():
        server.silent = True
        try:
            await asyncio.sleep(60)
        finally:
            ended.append(time.monotonic())

    async def main():
        began = time.monotonic()
        giving_back = asyncio.create_task(Lease(server, "n", "kaiflow", "me", pace).lead(work))
        while not ended:
            await asyncio.sleep(0.01)
        server.silent = False
        with pytest.raises(LeaseLostError):
            await giving_back
        return ended[0] - began

    assert asyncio.run(main()) < 1.2
