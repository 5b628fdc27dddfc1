"""Answers of one model to one request at a time, from a bounded queue, streamed as they are written.

One thread owns the model. A request waits in the queue; when the queue is full the caller is told so at
once. Base and adapter are the same weights in memory: the adapter is switched off for the base's answers.
"""

import queue
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import StoppingCriteria, StoppingCriteriaList, TextIteratorStreamer

from steps.chat import render
from steps.evaluation import end_token_ids
from steps.messages import Message

QUEUE_LENGTH = 16


class QueueFullError(Exception):
    """Too many requests are waiting."""


@dataclass(frozen=True, slots=True)
class Ask:
    """One request: messages, and how to sample."""

    messages: Sequence[Message]
    use_adapter: bool
    max_new_tokens: int = 256
    temperature: float = 0.0  # 0: greedy
    top_p: float = 1.0
    stop: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Usage:
    """What a request cost, and why it ended (``stop`` or ``length``)."""

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
        self._queue: queue.Queue[tuple[Ask, Reply] | None] = queue.Queue(maxsize=QUEUE_LENGTH)
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="model", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Requests in the queue."""
        return self._queue.qsize()

    def submit(self, ask: Ask) -> Reply:
        """Queue a request.

        Raises:
            QueueFullError: as many requests wait as the queue holds, or the server is closing.
        """
        reply = Reply()
        if self._closed:
            raise QueueFullError
        try:
            self._queue.put_nowait((ask, reply))
        except queue.Full as error:
            raise QueueFullError from error
        return reply

    def close(self) -> None:
        """Finish what is queued, take nothing more, and return when done."""
        self._closed = True
        self._queue.put(None)
        self._thread.join()

    def _work(self) -> None:
        while (item := self._queue.get()) is not None:
            ask, reply = item
            try:
                if not reply.cancelled:
                    self._write(ask, reply)
            except Exception as error:  # the caller gets it; the thread must go on
                reply.usage.set_exception(error)
            finally:
                reply.pieces.put(None)

    def _write(self, ask: Ask, reply: Reply) -> None:
        began = time.monotonic()
        text = render(self._tokenizer, ask.messages, generate=True)
        inputs = self._tokenizer(text, add_special_tokens=False, return_tensors="pt").to(self._model.device)
        streamer = _QueueStreamer(self._tokenizer, reply)
        sampling: dict[str, Any] = {"do_sample": False}
        if ask.temperature > 0:
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
        ended = whole - prompt < ask.max_new_tokens or int(output[0, -1]) in self._ends
        reply.usage.set_result(Usage(prompt, whole - prompt, "stop" if ended else "length", time.monotonic() - began))


class _QueueStreamer(TextIteratorStreamer):  # type: ignore[misc]  # transformers is not typed
    """Hands whole pieces of text to the reply, special tokens left out."""

    def __init__(self, tokenizer: Any, reply: Reply) -> None:  # noqa: ANN401
        super().__init__(tokenizer, skip_prompt=True, skip_special_tokens=True)
        self._reply = reply

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:  # noqa: ARG002
        """Pass one piece on."""
        if text:
            self._reply.pieces.put(text)


class _Cancelled(StoppingCriteria):  # type: ignore[misc]
    """Stops when nobody reads the reply any more."""

    def __init__(self, reply: Reply) -> None:
        self._reply = reply

    def __call__(self, input_ids: Any, scores: Any, **_: Any) -> Any:  # noqa: ANN401, ARG002  (its base's types)
        return torch.full((input_ids.shape[0],), self._reply.cancelled, device=input_ids.device, dtype=torch.bool)
