"""What is too long is refused, whether the request says so or not."""

import asyncio

import httpx
import pytest
from fastapi import FastAPI
from pydantic import BaseModel

from steps.body_limit import BodyLimit


class Asked(BaseModel):
    prompt: str


def app():
    served = FastAPI()
    served.add_middleware(BodyLimit, largest_bytes=100)

    @served.post("/chat")
    async def chat(body: Asked) -> int:
        return len(body.prompt)

    return served


def post(content):
    async def asked():
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app()), base_url="http://server") as client:
            return await client.post("/chat", content=content, headers={"Content-Type": "application/json"})

    return asyncio.run(asked())


async def pieces(text):
    """Send without a Content-Length."""
    for at in range(0, len(text), 10):
        yield text[at : at + 10]


@pytest.mark.parametrize("sent", [lambda text: text, pieces], ids=["said", "in pieces"])
def test_a_body_is_taken_up_to_the_bound_and_no_further(sent):
    longest = b'{"prompt": "%s"}' % (b"x" * 86)
    assert len(longest) == 100
    assert (post(sent(longest)).status_code, post(sent(longest)).json()) == (200, 86)
    refused = post(sent(longest + b" "))
    assert (refused.status_code, refused.json()) == (413, {"detail": "A request may have 100 bytes."})
