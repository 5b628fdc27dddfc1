"""Which of several controllers works: the holder of a Lease, as client-go's leader election has it.

``coordination.k8s.io/v1``. Whether a holder is alive is told by its renewals as seen by our own clock, so that clocks
that differ do no harm. Who cannot renew stops working before another may begin.
"""

import asyncio
import datetime as dt
import math
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from controller.kube_api import Api, ApiError, Object
from steps import logs


class LeaseLostError(Exception):
    """The lease could not be renewed in time."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How long a silent holder is waited for, how long one works without renewing, and how often it is tried."""

    lease_seconds: float = 15.0
    renew_seconds: float = 10.0
    retry_seconds: float = 2.0


class Lease:
    """One Lease, and our name for ourselves."""

    def __init__(self, api: Api, namespace: str, name: str, holder: str, pace: Pace = Pace()) -> None:
        self._api = api
        self._folder = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"
        self._name = name
        self._holder = holder
        self._pace = pace
        self._seen: tuple[str, str] = ("", "")
        self._seen_at = 0.0

    async def lead(self, work: Callable[[], Awaitable[None]]) -> None:
        """Wait for the lease, then do ``work`` for as long as it is ours; give it back at the end.

        Raises:
            LeaseLostError: it could not be renewed; the work has been cancelled.
        """
        while not await self._taken():
            await asyncio.sleep(self._pace.retry_seconds)
        logs.event("leading", holder=self._holder)
        renewed_at = time.monotonic()
        task = asyncio.ensure_future(work())
        try:
            while True:
                until = renewed_at + self._pace.renew_seconds
                await asyncio.wait([task], timeout=min(self._pace.retry_seconds, max(until - time.monotonic(), 0.0)))
                if task.done():
                    task.result()
                    return
                asked_at = time.monotonic()  # the server counts from no later than that
                if await self._taken(until - asked_at):
                    renewed_at = asked_at
                elif time.monotonic() >= until:
                    raise LeaseLostError
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await task
            await self._give_back()

    async def _taken(self, seconds: float = math.inf) -> bool:
        """Try once, for no longer than that: whoever waits beyond its lease may find another at work."""
        try:
            return await asyncio.wait_for(self._try(), min(seconds, self._pace.renew_seconds / 2))
        except (ApiError, TimeoutError) as error:
            logs.warning("lease_unasked", why=str(error) or type(error).__name__)
            return False

    async def _try(self) -> bool:
        """Take the lease, or renew it; False when it is another's."""
        lease = await self._api.get(f"{self._folder}/{self._name}")
        if lease is None:
            spec = {**self._renewed(), "acquireTime": _now(), "leaseTransitions": 0}
            return await self._api.create(self._folder, {"metadata": {"name": self._name}, "spec": spec}) is not None
        spec = lease.get("spec") or {}
        holder = str(spec.get("holderIdentity") or "")
        if holder != self._holder and not self._is_over(holder, str(spec.get("renewTime"))):
            return False
        changes: dict[str, Any] = self._renewed()
        if holder != self._holder:
            changes |= {"acquireTime": _now(), "leaseTransitions": int(spec.get("leaseTransitions") or 0) + 1}
        return await self._put(lease, changes)

    def _is_over(self, holder: str, renewed: str) -> bool:
        if not holder:
            return True
        if (holder, renewed) != self._seen:
            self._seen, self._seen_at = (holder, renewed), time.monotonic()
        return time.monotonic() - self._seen_at > self._pace.lease_seconds

    def _renewed(self) -> dict[str, Any]:
        seconds = max(1, round(self._pace.lease_seconds))
        return {"holderIdentity": self._holder, "leaseDurationSeconds": seconds, "renewTime": _now()}

    async def _put(self, lease: Object, changes: dict[str, Any]) -> bool:
        """Write under the lease's resourceVersion: of two that try, one is told that it was late."""
        body = {**lease, "spec": {**(lease.get("spec") or {}), **changes}}
        return await self._api.replace(f"{self._folder}/{self._name}", body) is not None

    async def _give_back(self) -> None:
        with suppress(ApiError, TimeoutError):
            lease = await asyncio.wait_for(self._api.get(f"{self._folder}/{self._name}"), 5)
            if lease is not None and (lease.get("spec") or {}).get("holderIdentity") == self._holder:
                await self._put(lease, {"holderIdentity": ""})


def _now() -> str:
    return dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
