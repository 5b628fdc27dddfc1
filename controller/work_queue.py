"""Which Workspaces are to be looked at: each key once, by one worker at a time; after a failure again, ever later."""

import asyncio
import random
from collections.abc import Awaitable, Callable

from controller.reflector import Key
from steps import logs

FIRST_SECONDS, LONGEST_SECONDS = 0.2, 120.0

Work = Callable[[Key], Awaitable[float | None]]  # returns after how many seconds to look again


class WorkQueue:
    """Keys that wait; a key that comes while it is worked on is worked on once more.

    What comes within ``gather_seconds`` is begun together: of a burst of changes of one object the last is seen, and
    a process that wakes up seldom does the same work for less CPU.
    """

    def __init__(
        self,
        work: Work,
        on_failure: Callable[[Key, Exception], None] = lambda _key, _error: None,
        gather_seconds: float = 0.0,
    ) -> None:
        self._work = work
        self._on_failure = on_failure
        self._gather_seconds = gather_seconds
        self._gathered: list[Key] = []
        self._ready: asyncio.Queue[Key] = asyncio.Queue()
        self._waiting: set[Key] = set()
        self._busy: set[Key] = set()
        self._failures: dict[Key, int] = {}
        self._later: dict[Key, asyncio.TimerHandle] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, key: Key, after_seconds: float = 0.0) -> None:
        """Look at ``key``, now or later; of several later looks the soonest counts."""
        if after_seconds > 0:
            self._schedule(key, after_seconds)
            return
        if (timer := self._later.pop(key, None)) is not None:
            timer.cancel()
        if key not in self._waiting:
            self._waiting.add(key)
            if key not in self._busy:
                self._enqueue(key)

    def _enqueue(self, key: Key) -> None:
        if not self._gather_seconds:
            self._ready.put_nowait(key)
            return
        if not self._gathered:
            asyncio.get_running_loop().call_later(self._gather_seconds, self._begin)
        self._gathered.append(key)

    def _begin(self) -> None:
        for key in self._gathered:
            self._ready.put_nowait(key)
        self._gathered.clear()

    def _schedule(self, key: Key, after_seconds: float) -> None:
        loop = asyncio.get_running_loop()
        timer = self._later.get(key)
        if timer is not None and timer.when() <= loop.time() + after_seconds:
            return
        if timer is not None:
            timer.cancel()
        self._later[key] = loop.call_later(after_seconds, self.add, key)

    async def run(self, workers: int) -> None:
        """Work, until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(workers):
                    group.create_task(self._worker())
        finally:
            for timer in self._later.values():
                timer.cancel()

    async def _worker(self) -> None:
        while True:
            key = await self._ready.get()
            self._waiting.discard(key)
            self._busy.add(key)
            try:
                again = await self._work(key)
                self._failures.pop(key, None)
                if again is not None:
                    self.add(key, max(again, 0.01))
            except Exception as error:  # one Workspace's fault must not end the others'
                self._failed(key, error)
            finally:
                self._busy.discard(key)
                if key in self._waiting:
                    self._enqueue(key)

    def _failed(self, key: Key, error: Exception) -> None:
        count = self._failures[key] = self._failures.get(key, 0) + 1
        pause = min(FIRST_SECONDS * 2**count, LONGEST_SECONDS) * random.uniform(0.8, 1.2)  # noqa: S311
        logs.warning("reconcile_failed", workspace="/".join(key), attempt=count, why=f"{type(error).__name__}: {error}")
        self._on_failure(key, error)
        self.add(key, pause)
