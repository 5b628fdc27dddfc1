"""How much a request may send: more than any prompt has is refused before it is held in memory.

uvicorn and Starlette read a body to its end, however long it is.
"""

from fastapi import HTTPException
from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LARGEST_BODY_BYTES = 4 * 2**20  # 128k tokens are half a MiB of text, six times that where each character is escaped


class BodyLimit:
    """Answers 413 to a body that says it is too long, or turns out to be."""

    def __init__(self, app: ASGIApp, largest_bytes: int = LARGEST_BODY_BYTES) -> None:
        self._app = app
        self._largest_bytes = largest_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, counting what is read of it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        said = Headers(scope=scope).get("content-length", "")
        if said.isdecimal() and int(said) > self._largest_bytes:
            await JSONResponse({"detail": self._refusal}, 413)(scope, receive, send)
            return
        read_bytes = 0

        async def counted() -> Message:
            nonlocal read_bytes
            message = await receive()
            read_bytes += len(message.get("body", b""))
            if read_bytes > self._largest_bytes:
                raise HTTPException(413, self._refusal)
            return message

        await self._app(scope, counted, send)

    @property
    def _refusal(self) -> str:
        return f"A request may have {self._largest_bytes} bytes."
