"""The Kubernetes API as the controller needs it: JSON objects by path, asynchronously, refusals as one error."""

from collections.abc import AsyncIterator, Mapping
from typing import Any, Self
from urllib.parse import urlencode

import aiohttp
import orjson
from yarl import URL

from controller.kube_login import Login, login
from presets.errors import KaiflowError

MANAGER = "kaiflow"
TIMEOUT = aiohttp.ClientTimeout(total=30, sock_connect=10)
APPLY, MERGE = "application/apply-patch+yaml", "application/merge-patch+json"

FORBIDDEN = (401, 403)

Object = dict[str, Any]
Query = Mapping[str, str]


class ApiError(KaiflowError):
    """The API server refused a request, or did not answer it (status 0)."""

    def __init__(self, status: int, what: str, message: str) -> None:
        super().__init__("ApiRefused", f"{what}: {status} {message}".strip(), fix="Read the API server's words.")
        self.status = status


class Api:
    """One API server, as one identity; a context manager that closes its connections."""

    def __init__(self, known: Login) -> None:
        self._login = known
        self.namespace = known.namespace

    @classmethod
    async def connect(cls) -> Self:
        """Return the API server of the pod or of the kubeconfig.

        Raises:
            ConfigError: there is neither.
        """
        return cls(await login())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._login.session.close()

    async def get(self, path: str, query: Query | None = None, accept: str = "application/json") -> Object | None:
        """Return the object, None when it is not there."""
        return await self._ask("GET", path, query, headers={"Accept": accept}, missing_ok=True)

    async def text(self, path: str, query: Query | None = None) -> str:
        """Return what is not JSON (a pod's log), empty when it is not to be had now."""
        try:
            return (await self._send("GET", path, query, None, {})).decode(errors="replace")
        except ApiError:
            return ""

    async def pages(self, path: str, query: Query) -> AsyncIterator[Object]:
        """Yield the lists of a collection, page by page; none where the kind is not known."""
        going_on = ""
        while True:
            page = await self.get(path, {**query, **({"continue": going_on} if going_on else {})})
            if page is None:
                raise ApiError(404, f"GET {path}", "the server has no such kind")
            yield page
            going_on = page["metadata"].get("continue", "")
            if not going_on:
                return

    async def create(self, path: str, body: Object) -> Object | None:
        """Create the object; None when one of its name is there."""
        try:
            return await self._ask("POST", path, {"fieldManager": MANAGER}, body, {"Content-Type": "application/json"})
        except ApiError as error:
            if error.status == 409:
                return None
            raise

    async def apply(self, path: str, body: Object) -> Object:
        """Apply server-side: what is named is ours, what is no longer named goes; others' fields stay."""
        query = {"fieldManager": MANAGER, "force": "true"}
        return await self._ask("PATCH", path, query, body, {"Content-Type": APPLY}) or {}

    async def merge(self, path: str, body: Object) -> Object | None:
        """Merge fields into the object; None when it is not there."""
        return await self._ask("PATCH", path, {"fieldManager": MANAGER}, body, {"Content-Type": MERGE}, missing_ok=True)

    async def replace(self, path: str, body: Object) -> Object | None:
        """Replace the object of that very resourceVersion; None when another was faster."""
        try:
            return await self._ask("PUT", path, {"fieldManager": MANAGER}, body, {"Content-Type": "application/json"})
        except ApiError as error:
            if error.status == 409:
                return None
            raise

    async def delete(self, path: str, uid: str = "") -> bool:
        """Delete the object, of that uid if one is named; False when it is not there."""
        body = {"propagationPolicy": "Background", **({"preconditions": {"uid": uid}} if uid else {})}
        try:
            found = await self._ask("DELETE", path, {}, body, {"Content-Type": "application/json"}, missing_ok=True)
        except ApiError as error:
            if error.status == 409:  # another object of that name
                return False
            raise
        return found is not None

    async def stream(self, path: str, query: Query, silence_seconds: float) -> AsyncIterator[bytes]:
        """Yield the lines of a watch as they come.

        Raises:
            ApiError: it is refused; 410: the resourceVersion is too old.
            TimeoutError: nothing came for ``silence_seconds``: the connection is dead.
        """
        waits = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=silence_seconds)
        headers = await self._login.headers()
        async with self._login.session.get(
            self._login.host + path, params=query, headers=headers, timeout=waits
        ) as answer:
            if answer.status >= 400:
                raise ApiError(answer.status, f"WATCH {path}", _words(await answer.read()))
            rest = b""
            async for chunk in answer.content.iter_any():  # not lines: a Workflow is longer than aiohttp lets one be
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    yield line

    async def _ask(
        self,
        method: str,
        path: str,
        query: Query | None = None,
        body: Object | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        missing_ok: bool = False,
    ) -> Object | None:
        try:
            answer = await self._send(method, path, query, body, headers or {})
        except ApiError as error:
            if error.status == 404 and missing_ok:
                return None
            raise
        found: Object = orjson.loads(answer) if answer else {}
        return found

    async def _send(
        self, method: str, path: str, query: Query | None, body: Object | None, headers: Mapping[str, str]
    ) -> bytes:
        try:
            said = {**await self._login.headers(), **headers}
            data = orjson.dumps(body) if body is not None else None
            url = URL(f"{self._login.host}{path}{f'?{urlencode(query)}' if query else ''}", encoded=True)
            async with self._login.session.request(method, url, data=data, headers=said, timeout=TIMEOUT) as answer:
                found = await answer.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise ApiError(0, f"{method} {path}", str(error) or type(error).__name__) from error
        if answer.status >= 400:
            raise ApiError(answer.status, f"{method} {path}", _words(found))
        return found


def _words(body: bytes) -> str:
    try:
        return str(orjson.loads(body).get("message") or "")
    except (ValueError, AttributeError):
        return body[:200].decode(errors="replace")
