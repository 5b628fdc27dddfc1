"""The inference API: KAITO's ``/chat`` of the v0.4 days, and OpenAI's chat completions.

``POST /chat {"prompt": …}`` → ``{"Result": …}`` · ``POST /v1/chat/completions`` (stream or not) ·
``GET /v1/models`` · ``GET /health`` · ``GET /metrics`` (Prometheus). ``model`` picks base or adapter.
"""

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse, PlainTextResponse, StreamingResponse
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import iterate_in_threadpool, run_in_threadpool

from presets.errors import DataError
from steps.body_limit import BodyLimit
from steps.generation import Ask, Generator, QueueFullError, Reply, Usage

StopText = Annotated[str, Field(min_length=1)]


@dataclass(frozen=True, slots=True)
class Models:
    """The names under which base and adapter answer."""

    base: str
    adapter: str


class ChatMessage(BaseModel):
    """One turn."""

    role: Literal["system", "user", "assistant"]
    content: str


class GenerateOptions(BaseModel):
    """KAITO's ``generate_kwargs``; those that this server does not know are refused by name."""

    model_config = ConfigDict(extra="forbid")

    max_new_tokens: Annotated[int, Field(ge=1, le=8192)] | None = None
    do_sample: bool = False
    temperature: Annotated[float, Field(ge=0, le=2)] = 1.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0


class ChatRequest(BaseModel):
    """Body of ``POST /chat``: a prompt, or messages."""

    prompt: Annotated[str, Field(min_length=1)] | None = None
    messages: list[ChatMessage] | None = None
    model: str | None = None
    generate_kwargs: GenerateOptions = GenerateOptions()


class CompletionRequest(BaseModel):
    """Body of ``POST /v1/chat/completions``, the fields that this server honours."""

    model: str | None = None
    messages: Annotated[list[ChatMessage], Field(min_length=1)]
    max_tokens: Annotated[int, Field(ge=1, le=8192)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1, le=8192)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] = 0.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    stop: StopText | Annotated[list[StopText], Field(max_length=16)] | None = None
    stream: bool = False
    n: Literal[1] = 1


class ServerMetrics:
    """Every metric that the server has."""

    def __init__(self, waiting: Callable[[], int]) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "kaiflow_requests", "Requests by model and outcome", ["model", "outcome"], registry=self.registry
        )
        self.tokens = Counter("kaiflow_generated_tokens", "Tokens written", ["model"], registry=self.registry)
        self.seconds = Histogram("kaiflow_generation_seconds", "Time of a request on the model", registry=self.registry)
        gauge = Gauge("kaiflow_requests_waiting", "Requests in the queue", registry=self.registry)
        gauge.set_function(waiting)

    def count(self, model: str, ended: "Future[Usage]") -> Usage:
        """Count one finished request, and return what it cost; one that failed is counted, and fails."""
        try:
            usage = ended.result()  # there before the last piece
        except Exception:
            self.requests.labels(model, "error").inc()
            raise
        self.requests.labels(model, usage.finish_reason).inc()
        self.tokens.labels(model).inc(usage.completion_tokens)
        self.seconds.observe(usage.seconds)
        return usage


def build(models: Models, generator: Generator) -> FastAPI:
    """Return the application; at its shutdown the queued requests are finished first."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await run_in_threadpool(generator.close)

    app = FastAPI(title="kaiflow", lifespan=lifespan, docs_url=None, redoc_url=None)
    app.add_middleware(BodyLimit)
    metrics = ServerMetrics(lambda: generator.waiting)
    _add_status_routes(app, models, generator, metrics)
    _add_chat(app, models, generator, metrics)
    _add_completions(app, models, generator, metrics)
    return app


def _add_status_routes(app: FastAPI, models: Models, generator: Generator, metrics: ServerMetrics) -> None:
    started = int(time.time())

    @app.get("/")
    def root() -> dict[str, str]:
        return {"message": "Server is running"}

    @app.get("/health")
    def health() -> dict[str, str]:
        if generator.broken:  # a new process is needed: the probe sees to it
            raise HTTPException(503, "The GPU has failed.")
        return {"status": "Healthy"}

    @app.get("/metrics")
    def prometheus() -> PlainTextResponse:
        return PlainTextResponse(generate_latest(metrics.registry).decode(), media_type=CONTENT_TYPE_LATEST)

    @app.get("/v1/models")
    def list_models() -> dict[str, Any]:
        entry = {"object": "model", "created": started, "owned_by": "kaiflow"}
        adapter = {"id": models.adapter, "parent": models.base, **entry}
        return {"object": "list", "data": [adapter, {"id": models.base, "parent": None, **entry}]}


def _add_chat(app: FastAPI, models: Models, generator: Generator, metrics: ServerMetrics) -> None:
    @app.post("/chat")
    async def chat(body: ChatRequest, request: Request) -> dict[str, str]:
        if body.prompt is None and not body.messages:
            raise HTTPException(400, "Text generation parameter prompt required")
        messages = [m.model_dump() for m in body.messages or []] or [{"role": "user", "content": body.prompt or ""}]
        name, use_adapter = _choose(models, body.model)
        options = body.generate_kwargs
        temperature = options.temperature if options.do_sample else 0.0
        ask = Ask(messages, use_adapter, options.max_new_tokens, temperature, options.top_p)
        text, _ = await _whole(await _submit(generator, ask, name, metrics), request, name, metrics)
        return {"Result": text}


def _add_completions(app: FastAPI, models: Models, generator: Generator, metrics: ServerMetrics) -> None:
    @app.post("/v1/chat/completions", response_model=None)
    async def completions(body: CompletionRequest, request: Request) -> JSONResponse | StreamingResponse:
        name, use_adapter = _choose(models, body.model)
        stop = [body.stop] if isinstance(body.stop, str) else list(body.stop or [])
        limit = body.max_completion_tokens or body.max_tokens
        messages = [m.model_dump() for m in body.messages]
        ask = Ask(messages, use_adapter, limit, body.temperature, body.top_p, stop)
        reply = await _submit(generator, ask, name, metrics)
        head = {"id": f"chatcmpl-{uuid.uuid4().hex}", "created": int(time.time()), "model": name}
        if body.stream:
            events = _events(reply, head, name, metrics)
            return StreamingResponse(events, media_type="text/event-stream", headers={"X-Accel-Buffering": "no"})
        text, usage = await _whole(reply, request, name, metrics)
        choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": usage.finish_reason}
        return JSONResponse({**head, "object": "chat.completion", "choices": [choice], "usage": _usage(usage)})


def _choose(models: Models, asked: str | None) -> tuple[str, bool]:
    if asked in (None, "", models.adapter):
        return models.adapter, True
    if asked == models.base:
        return models.base, False
    raise HTTPException(404, f"There is no model {asked!r} here; there are {models.adapter!r} and {models.base!r}.")


async def _submit(generator: Generator, ask: Ask, name: str, metrics: ServerMetrics) -> Reply:
    try:
        return await run_in_threadpool(generator.submit, ask)
    except DataError as error:
        metrics.requests.labels(name, "refused").inc()
        raise HTTPException(400, str(error)) from error
    except QueueFullError as error:
        metrics.requests.labels(name, "refused").inc()
        raise HTTPException(429, "Too many requests are waiting.", headers={"Retry-After": "5"}) from error


async def _whole(reply: Reply, request: Request, name: str, metrics: ServerMetrics) -> tuple[str, Usage]:
    """Return the whole text; a caller that hangs up stops the writing."""
    task = asyncio.create_task(run_in_threadpool(lambda: "".join(reply)))
    while not task.done():
        await asyncio.wait([task], timeout=0.25)
        if not task.done() and await request.is_disconnected():
            reply.cancel()
    usage = metrics.count(name, reply.usage)
    return task.result().strip(), usage


async def _events(reply: Reply, head: dict[str, Any], name: str, metrics: ServerMetrics) -> AsyncIterator[str]:
    """Yield server-sent events; when the caller hangs up the iterator is closed and the writing stops."""

    def event(delta: dict[str, str], finish: str | None) -> str:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        return f"data: {json.dumps({**head, 'object': 'chat.completion.chunk', 'choices': [choice]})}\n\n"

    try:
        yield event({"role": "assistant", "content": ""}, None)
        async for piece in iterate_in_threadpool(iter(reply)):
            yield event({"content": piece}, None)
        usage = metrics.count(name, reply.usage)
        yield event({}, usage.finish_reason)
        yield "data: [DONE]\n\n"
    finally:
        reply.cancel()


def _usage(usage: Usage) -> dict[str, int]:
    total = usage.prompt_tokens + usage.completion_tokens
    return {"prompt_tokens": usage.prompt_tokens, "completion_tokens": usage.completion_tokens, "total_tokens": total}
