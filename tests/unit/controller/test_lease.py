"""Who leads stops before another may begin, whatever the server does."""

import asyncio
import time

import pytest

from controller.lease import Lease, LeaseLostError, Pace


class Server:
    """Holds one Lease; answers until it falls silent."""

    def __init__(self):
        self.lease, self.silent = None, False

    async def _answer(self):
        if self.silent:
            await asyncio.sleep(60)

    async def get(self, _path):
        await self._answer()
        return self.lease

    async def create(self, _path, body):
        self.lease = body
        return body

    async def replace(self, _path, body):
        await self._answer()
        self.lease = body
        return body


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
