"""What one kind of object looks like on the cluster now: listed once, then watched.

Bookmarks keep the place; a place that is too old (410) and a connection that has gone silent lead to a new list, which
is compared with what was known, so that what was deleted meanwhile is seen. Objects are pruned before they are kept.
"""

import asyncio
import random
import time
from collections.abc import Callable

import aiohttp
import orjson

from controller.kube_api import Api, ApiError, Object
from steps import logs

Key = tuple[str, str]  # namespace, name

PAGE = 50  # Workflows are large, and what a page takes for a moment is never given back
SILENCE_SECONDS = 75.0  # a bookmark comes every minute
GONE_KEPT = 1000
GONE_SECONDS = 60.0  # a kind that is not known for so long is gone; shorter, its CRD is being made anew
WATCH_SECONDS = (240, 360)
SHORTEST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.2, 30.0


def key_of(body: Object) -> Key:
    """Return the namespace and the name of an object."""
    metadata = body["metadata"]
    return metadata.get("namespace", ""), metadata["name"]


class Reflector:
    """A live copy of one collection; ``on_change`` is told an object as it was and as it is, None where it is not."""

    def __init__(
        self,
        api: Api,
        path: str,
        prune: Callable[[Object], Object],
        on_change: Callable[[Object | None, Object | None], None],
        labels: str = "",
    ) -> None:
        self._api = api
        self._path = path
        self._prune = prune
        self._on_change = on_change
        self._query = {"labelSelector": labels} if labels else {}
        self._version = ""  # empty: not listed
        self.objects: dict[Key, Object] = {}
        self.synced = asyncio.Event()
        self.known = True  # whether the server has the kind
        self.relists = 0
        self._gone: dict[str, None] = {}  # uids of what went last, in that order
        self._written: set[Key] = set()  # by us, since the last list began
        self.heard_at = time.monotonic()

    async def run(self) -> None:
        """Keep the copy true, until cancelled."""
        self.heard_at = time.monotonic()
        pause = SHORTEST_PAUSE_SECONDS
        while True:
            began = time.monotonic()
            try:
                if not self._version:
                    await self._list()
                await self._watch()
            except (ApiError, aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
                status = error.status if isinstance(error, ApiError) else 0
                if status in (403, 404, 410):
                    self._version = ""
                if status == 404 and (not self.synced.is_set() or time.monotonic() - self.heard_at > GONE_SECONDS):
                    self._missing()
                logs.event("watch_ended", path=self._path, why=str(error) or type(error).__name__)
            if time.monotonic() - began > LONGEST_PAUSE_SECONDS:
                pause = SHORTEST_PAUSE_SECONDS
            await asyncio.sleep(pause * random.uniform(0.8, 1.2))  # noqa: S311  (a pause)
            pause = min(pause * 2, LONGEST_PAUSE_SECONDS)

    def remember(self, body: Object, *, quiet: bool = False) -> None:
        """Keep an object that a write has returned, unless a newer one has been seen; ``quiet``: it is no news."""
        known = self.objects.get(key_of(body))
        if body["metadata"].get("uid") in self._gone:
            return  # meanwhile it has: the watch was faster
        if known is None or _version(known) < _version(body):
            self._put(body, quiet=quiet)
            self._written.add(key_of(body))

    async def _list(self) -> None:
        self.relists += 1
        self._written.clear()
        found: dict[Key, Object] = {}
        version = ""
        async for page in self._api.pages(self._path, {**self._query, "limit": str(PAGE)}):
            found |= {key_of(body): self._prune(body) for body in page["items"]}
            version = page["metadata"]["resourceVersion"]
        for key in self._written & self.objects.keys():  # written since the list began: it may be of before
            if _version(self.objects[key]) > int(version):
                found[key] = self.objects[key]
        before, self.objects, self._version = self.objects, found, version
        self.known = True
        self.heard_at = time.monotonic()
        for key in before.keys() | found.keys():
            old, new = before.get(key), found.get(key)
            if old is None or new is None or _version(old) != _version(new):
                self._on_change(old, new)
        self.synced.set()

    def _missing(self) -> None:
        """Forget all objects: the server does not know the kind, and has not for a while."""
        self.known = False
        before, self.objects = self.objects, {}
        for old in before.values():
            self._on_change(old, None)
        self.synced.set()

    async def _watch(self) -> None:
        query = {
            **self._query, "watch": "1", "allowWatchBookmarks": "true", "resourceVersion": self._version,
            "timeoutSeconds": str(random.randint(*WATCH_SECONDS)),  # noqa: S311  (not all at once)
        }  # fmt: skip
        async for line in self._api.stream(self._path, query, SILENCE_SECONDS):
            self.heard_at = time.monotonic()
            told = orjson.loads(line)
            body = told["object"]
            if told["type"] == "ERROR":
                raise ApiError(int(body.get("code") or 0), f"WATCH {self._path}", str(body.get("message", "")))
            self._version = body["metadata"]["resourceVersion"]
            if told["type"] == "DELETED":
                self._forget(body)
            elif told["type"] != "BOOKMARK":
                self._put(body)

    def _forget(self, body: Object) -> None:
        """Drop what the watch says is gone, and note it: an answer of before may be on its way."""
        self._gone[body["metadata"].get("uid", "")] = None
        while len(self._gone) > GONE_KEPT:
            del self._gone[next(iter(self._gone))]
        self._on_change(self.objects.pop(key_of(body), None), None)

    def _put(self, body: Object, *, quiet: bool = False) -> None:
        key = key_of(body)
        before = self.objects.get(key)
        if before is not None and _version(before) >= _version(body):  # a write's answer was faster than the watch
            return
        self.objects[key] = self._prune(body)
        if not quiet:
            self._on_change(before, self.objects[key])


def _version(body: Object) -> int:
    """Return the resourceVersion as a number: comparable, since Kubernetes 1.35 by contract."""
    return int(body["metadata"]["resourceVersion"])
