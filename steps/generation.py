"""Answers of one model to one request at a time, from a bounded queue, streamed as they are written.

One thread owns the model. A request waits in the queue; when the queue is full the caller is told so at
once. Base and adapter are the same weights in memory: the adapter is switched off for the base's answers.
"""

import copy
import queue
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from transformers import StoppingCriteria, StoppingCriteriaList, TextIteratorStreamer

from presets.errors import DataError
from steps.chat import render
from steps.evaluation import end_token_ids
from steps.messages import Message

QUEUE_LENGTH = 16
MAX_NEW_TOKENS = 256
COLDEST = 0.01  # below it scores divided by the temperature overflow, and the likeliest token is chosen anyway
TOKEN_CHARACTERS = 64  # hardly a token is longer: a text of so many times the window is not even counted


class QueueFullError(Exception):
    """Too many requests are waiting."""


@dataclass(frozen=True, slots=True)
class Ask:
    """One request: messages, and how to sample."""

    messages: Sequence[Message]
    use_adapter: bool
    max_new_tokens: int | None = None  # as many as fit, and 256 at most
    temperature: float = 0.0  # 0: greedy
    top_p: float = 1.0
    stop: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Usage:
    """What a request cost, and why it ended: ``stop``, ``length``, or ``cancelled`` before it began."""

    prompt_tokens: int
    completion_tokens: int
    finish_reason: str
    seconds: float


@dataclass
class Reply:
    """Pieces of text as they come, then the usage; ``cancel`` ends the writing at the next token."""

    pieces: "queue.Queue[str | None]" = field(default_factory=queue.Queue)
    usage: "Future[Usage]" = field(default_factory=Future)
    _cancelled: threading.Event = field(default_factory=threading.Event)

    def __iter__(self) -> Iterator[str]:
        while (piece := self.pieces.get()) is not None:
            yield piece

    def cancel(self) -> None:
        """Stop writing: nobody reads any more."""
        self._cancelled.set()

    @property
    def cancelled(self) -> bool:
        """Whether :meth:`cancel` was called."""
        return self._cancelled.is_set()


class Generator:
    """Owns the model; :meth:`submit` from any thread."""

    def __init__(self, model: Any, tokenizer: Any, dtype: torch.dtype) -> None:  # noqa: ANN401
        self._model = model
        self._tokenizer = tokenizer
        self._dtype = dtype
        self._ends = end_token_ids(model, tokenizer)
        self._window_tokens = getattr(model.config, "max_position_embeddings", None)
        self._counting, self._count_lock = copy.deepcopy(tokenizer), threading.Lock()  # beside the thread that writes
        self._queue: queue.Queue[tuple[Ask, str, Reply] | None] = queue.Queue(maxsize=QUEUE_LENGTH)
        self._closed = False
        self._broken = False
        self._thread = threading.Thread(target=self._work, name="model", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Requests in the queue."""
        return self._queue.qsize()

    @property
    def broken(self) -> bool:
        """Whether the GPU has failed in a way after which this process can use it no more."""
        return self._broken

    def submit(self, ask: Ask) -> Reply:
        """Queue a request; what can be refused is refused before it waits.

        Raises:
            QueueFullError: as many requests wait as the queue holds, or the server is closing.
            DataError: the chat template refuses the messages, or they are longer than the model's window.
        """
        reply = Reply()
        if self._closed or self._queue.full():
            raise QueueFullError
        text = render(self._tokenizer, ask.messages, generate=True)
        new_tokens = self._new_tokens(text, ask.max_new_tokens)
        try:
            self._queue.put_nowait((replace(ask, max_new_tokens=new_tokens), text, reply))
        except queue.Full as error:
            raise QueueFullError from error
        return reply

    def _new_tokens(self, text: str, asked: int | None) -> int:
        """Return how many tokens may be written behind the text."""
        window = self._window_tokens
        if window is None:
            return asked or MAX_NEW_TOKENS
        tokens = len(text) // TOKEN_CHARACTERS
        if tokens <= window:
            with self._count_lock:
                tokens = len(self._counting(text, add_special_tokens=False)["input_ids"])
        new_tokens = asked or max(1, min(MAX_NEW_TOKENS, window - tokens))
        if tokens + new_tokens > window:
            raise DataError(
                "PromptTooLong",
                f"The prompt has {tokens} tokens or more, {new_tokens} are asked for; the model takes {window} in all.",
                fix="Shorten the prompt, or ask for fewer tokens.",
            )
        return new_tokens

    def close(self) -> None:
        """Finish what is queued, take nothing more, and return when done."""
        self._closed = True
        self._queue.put(None)
        self._thread.join()

    def _work(self) -> None:
        while (item := self._queue.get()) is not None:
            ask, text, reply = item
            try:
                if reply.cancelled:
                    reply.usage.set_result(Usage(0, 0, "cancelled", 0.0))
                else:
                    self._write(ask, text, reply)
            except Exception as error:  # the caller gets it; the thread must go on
                self._broken = self._broken or isinstance(error, torch.AcceleratorError)
                reply.usage.set_exception(error)
            finally:
                reply.pieces.put(None)

    def _write(self, ask: Ask, text: str, reply: Reply) -> None:
        began = time.monotonic()
        inputs = self._tokenizer(text, add_special_tokens=False, return_tensors="pt").to(self._model.device)
        streamer = _QueueStreamer(self._tokenizer, reply, ask.stop)
        sampling: dict[str, Any] = {"do_sample": False}
        if ask.temperature >= COLDEST:
            sampling = {"do_sample": True, "temperature": ask.temperature, "top_p": ask.top_p, "top_k": 0}
        adapter = nullcontext() if ask.use_adapter else self._model.disable_adapter()
        on_cpu = self._model.device.type == "cpu"
        autocast = torch.autocast(
            self._model.device.type, dtype=self._dtype, enabled=on_cpu and self._dtype != torch.float32
        )
        with torch.inference_mode(), adapter, autocast:
            output = self._model.generate(
                **inputs,
                max_new_tokens=ask.max_new_tokens,
                eos_token_id=self._ends,
                pad_token_id=self._tokenizer.pad_token_id,
                streamer=streamer,
                stop_strings=list(ask.stop) or None,
                tokenizer=self._tokenizer,
                stopping_criteria=StoppingCriteriaList([_Cancelled(reply)]),
                **sampling,
            )
        prompt, whole = inputs["input_ids"].shape[1], output.shape[1]
        ended = whole - prompt < (ask.max_new_tokens or 0) or int(output[0, -1]) in self._ends
        reply.usage.set_result(Usage(prompt, whole - prompt, "stop" if ended else "length", time.monotonic() - began))


class _QueueStreamer(TextIteratorStreamer):  # type: ignore[misc]  # transformers is not typed
    """Hands whole pieces of text to the reply, special tokens left out, and nothing from a stop string on."""

    def __init__(self, tokenizer: Any, reply: Reply, stops: Sequence[str]) -> None:  # noqa: ANN401
        super().__init__(tokenizer, skip_prompt=True, skip_special_tokens=True)
        self._reply = reply
        self._until = Until(stops)

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        """Pass one piece on."""
        if piece := self._until.piece(text, last=stream_end):
            self._reply.pieces.put(piece)


class Until:
    """Text in pieces, up to the stop string that is whole first; what may be the beginning of one is held back."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = stops
        self._held = ""
        self._over = False

    def piece(self, text: str, *, last: bool) -> str:
        """Return what may be shown by now."""
        if self._over:
            return ""
        text = self._held + text
        ends = [(place + len(stop), place) for stop in self._stops if (place := text.find(stop)) >= 0]
        if ends:
            self._over = True
            return text[: min(ends)[1]]
        begun = 0 if last else max((_begun(text, stop) for stop in self._stops), default=0)
        self._held = text[len(text) - begun :]
        return text[: len(text) - begun]


def _begun(text: str, stop: str) -> int:
    """Return how much of ``stop`` the text ends with."""
    return next((n for n in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:n])), 0)


class _Cancelled(StoppingCriteria):  # type: ignore[misc]
    """Stops when nobody reads the reply any more."""

    def __init__(self, reply: Reply) -> None:
        self._reply = reply

    def __call__(self, input_ids: Any, scores: Any, **_: Any) -> Any:  # noqa: ANN401, ARG002  (its base's types)
        return torch.full((input_ids.shape[0],), self._reply.cancelled, device=input_ids.device, dtype=torch.bool)
