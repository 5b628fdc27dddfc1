"""``kaiflow chat``: one question to a Workspace's endpoint, the answer as it is written."""

import json
from collections.abc import Iterator

import httpx

from presets.errors import KaiflowError, UnavailableError

TIMEOUT = httpx.Timeout(300.0, connect=10.0)


def ask(endpoint: str, prompt: str, model: str | None) -> Iterator[str]:
    """Yield the answer in pieces.

    Raises:
        UnavailableError: the server does not answer, or has too much to do.
    """
    body = {"messages": [{"role": "user", "content": prompt}], "stream": True, **({"model": model} if model else {})}
    try:
        # The endpoint is one of this machine: no proxy of the environment's leads there.
        with httpx.stream(
            "POST", f"{endpoint}/v1/chat/completions", json=body, timeout=TIMEOUT, trust_env=False
        ) as response:
            if response.status_code != httpx.codes.OK:
                response.read()
                raise _refused(response)
            yield from _pieces(response)
    except httpx.HTTPError as error:
        raise UnavailableError(
            "ServerSilent",
            f"{endpoint} does not answer ({type(error).__name__}).",
            fix="Run the file again to start it.",
        ) from error


def _pieces(response: httpx.Response) -> Iterator[str]:
    for line in response.iter_lines():
        if line.startswith("data: ") and line != "data: [DONE]":
            delta = json.loads(line.removeprefix("data: "))["choices"][0]["delta"]
            if delta.get("content"):
                yield delta["content"]


def _refused(response: httpx.Response) -> KaiflowError:
    try:
        detail = response.json()["detail"]
    except (ValueError, KeyError):
        detail = response.text[:200]
    return UnavailableError("ServerRefused", f"The server answered {response.status_code}: {detail}", fix="")
