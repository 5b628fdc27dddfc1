"""Is the tuned model better than its base?  Both scored by the same code on the same held-out rows.

Loss is taken on the assistant's tokens including the end token, whose own loss is reported apart: it tells
whether the model learned to stop. The difference is paired by row, so that its standard error means something.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from presets.errors import DataError
from steps import logs
from steps.batches import Batch, Form, collate, placed
from steps.chat import Encoded, render
from steps.loss import token_losses
from steps.messages import Conversation, Message
from steps.segment_attention import in_use

TOKENS_PER_BATCH = 2048
ANSWER_TOKENS = 48


@dataclass(frozen=True, slots=True)
class Score:
    """The held-out rows under one model."""

    loss: float  # mean over supervised tokens
    end_loss: float  # mean over the end tokens alone
    row_losses: tuple[float, ...]  # mean of each row, in the order of the rows
    tokens: int

    @property
    def perplexity(self) -> float:
        """exp(loss)."""
        return math.exp(min(self.loss, 700.0))

    def figures(self) -> dict[str, float]:
        """Return the figures that are kept."""
        return {"loss": self.loss, "end_loss": self.end_loss, "perplexity": self.perplexity, "tokens": self.tokens}


@dataclass(frozen=True, slots=True)
class Answer:
    """One greedy answer."""

    question: str
    text: str
    tokens: int
    stopped: bool  # the model ended by itself


@dataclass(frozen=True, slots=True)
class Assessment:
    """One model on the held-out rows: its score, where there are any, and a few answers."""

    score: Score | None
    answers: Sequence[Answer]


@dataclass(frozen=True, slots=True)
class Comparison:
    """The paired difference, tuned minus base: negative is better."""

    difference: float
    standard_error: float


def score(model: Any, rows: Sequence[Encoded], pad_id: int, end_ids: Sequence[int]) -> Score:  # noqa: ANN401
    """Return the model's score on ``rows``; leaves the model's mode as it was.

    Raises:
        DataError: the loss is not a number.
    """
    was_training = model.training
    model.eval()
    place = next(model.parameters()).device
    sums, counts = [0.0] * len(rows), [0] * len(rows)
    end_sum, end_count = 0.0, 0
    ends = torch.tensor(sorted(end_ids), device=place)
    with torch.inference_mode(), _autocast(model):
        for indices, batch in _batches(rows, pad_id, "segments" if in_use(model) else "dense"):
            losses, labels = token_losses(model, placed(batch, place))
            is_end = torch.isin(labels, ends)
            end_sum += losses[is_end].sum().item()
            end_count += int(is_end.sum())
            per_row = torch.split(losses, [rows[i].supervised for i in indices])
            for i, row_losses in zip(indices, per_row, strict=True):
                sums[i], counts[i] = row_losses.sum().item(), len(row_losses)
    model.train(was_training)
    total = sum(counts)
    loss = sum(sums) / max(1, total)
    if not math.isfinite(loss):
        raise DataError("LossNotFinite", "The held-out loss is not a number.", fix="Lower the learning rate.")
    rows_mean = tuple(s / max(1, c) for s, c in zip(sums, counts, strict=True))
    return Score(loss, end_sum / max(1, end_count), rows_mean, total)


def compare(base: Score, tuned: Score) -> Comparison:
    """Return the mean paired difference of the row losses and its standard error."""
    differences = [t - b for b, t in zip(base.row_losses, tuned.row_losses, strict=True)]
    count = len(differences)
    mean = sum(differences) / max(1, count)
    variance = sum((d - mean) ** 2 for d in differences) / max(1, count - 1)
    return Comparison(mean, math.sqrt(variance / max(1, count)))


def assess(
    name: str,
    model: Any,  # noqa: ANN401
    tokenizer: Any,  # noqa: ANN401
    rows: Sequence[Encoded],
    questions: Sequence[Conversation],
) -> Assessment:
    """Return the model's score on the held-out ``rows`` and its greedy answers to ``questions``."""
    found = score(model, rows, tokenizer.pad_token_id, end_token_ids(model, tokenizer)) if rows else None
    return assessed(name, found, model, tokenizer, questions)


def assessed(
    name: str,
    found: Score | None,
    model: Any,  # noqa: ANN401
    tokenizer: Any,  # noqa: ANN401
    questions: Sequence[Conversation],
) -> Assessment:
    """Return the assessment of a model whose score is known."""
    if found is not None:
        logs.event("evaluated", model=name, held_out_loss=found.loss, end_loss=found.end_loss)
    return Assessment(found, answer(model, tokenizer, questions))


def compared(base: Assessment, tuned: Assessment) -> dict[str, Any]:
    """Return the figures of base and tuned side by side; without held-out rows there are no losses."""
    figures: dict[str, Any] = {
        "base": base.score and base.score.figures(),
        "tuned": tuned.score and tuned.score.figures(),
        "held_out_rows": len(base.score.row_losses) if base.score else 0,
        "answers": [
            {
                "question": b.question,
                "base": b.text,
                "base_stopped": b.stopped,
                "tuned": t.text,
                "tuned_stopped": t.stopped,
            }
            for b, t in zip(base.answers, tuned.answers, strict=True)
        ],
    }
    if base.score is not None and tuned.score is not None:
        pair = compare(base.score, tuned.score)
        figures |= {"difference": pair.difference, "standard_error": pair.standard_error}
    return figures


def answer(model: Any, tokenizer: Any, rows: Sequence[Conversation]) -> list[Answer]:  # noqa: ANN401
    """Return the model's greedy answers to the first question of each row, all generated together."""
    if not rows:
        return []
    was_training = model.training
    model.eval()
    prompts = [_first_question(row) for row in rows]
    texts = [render(tokenizer, p, row.tools, generate=True) for p, row in zip(prompts, rows, strict=True)]
    inputs = tokenizer(texts, add_special_tokens=False, return_tensors="pt", padding=True, padding_side="left")
    ends = end_token_ids(model, tokenizer)
    with torch.inference_mode(), _autocast(model):
        outputs = model.generate(
            **inputs.to(next(model.parameters()).device),
            max_new_tokens=ANSWER_TOKENS,
            do_sample=False,
            eos_token_id=ends,
            pad_token_id=tokenizer.pad_token_id,
        )
    model.train(was_training)
    replies = outputs[:, inputs["input_ids"].shape[1] :].tolist()
    return [
        _answer(prompt[-1]["content"], tokens, tokenizer, ends) for prompt, tokens in zip(prompts, replies, strict=True)
    ]


def _first_question(row: Conversation) -> list[Message]:
    asked = next(i for i, message in enumerate(row.messages) if message["role"] == "user")
    return row.messages[: asked + 1]


def _answer(question: str, tokens: list[int], tokenizer: Any, ends: Sequence[int]) -> Answer:  # noqa: ANN401
    end = next((i for i, token in enumerate(tokens) if token in ends), None)
    said = tokens if end is None else tokens[: end + 1]
    return Answer(question, tokenizer.decode(said, skip_special_tokens=True).strip(), len(said), end is not None)


def end_token_ids(model: Any, tokenizer: Any) -> list[int]:  # noqa: ANN401
    """Return every token that ends an answer: the tokenizer's, and those of the generation config."""
    configured = getattr(model.generation_config, "eos_token_id", None)
    ids = configured if isinstance(configured, list) else [configured]
    return sorted({i for i in [*ids, tokenizer.eos_token_id] if i is not None})


def _batches(rows: Sequence[Encoded], pad_id: int, form: Form) -> Iterator[tuple[list[int], Batch]]:
    """Yield batches of one row a line, similar lengths together, so that little is padded."""
    order = sorted(range(len(rows)), key=lambda i: len(rows[i].ids))
    start = 0
    while start < len(order):
        end = start + 1
        while end < len(order) and (end + 1 - start) * len(rows[order[end]].ids) <= TOKENS_PER_BATCH:
            end += 1
        indices = order[start:end]
        yield indices, collate([[rows[i]] for i in indices], pad_id, form, share=False)
        start = end


def _autocast(model: Any) -> torch.autocast:  # noqa: ANN401
    place = next(model.parameters()).device.type
    dtype = next((p.dtype for p in model.parameters() if p.dtype in (torch.bfloat16, torch.float16)), torch.bfloat16)
    lower = any(p.dtype in (torch.bfloat16, torch.float16) for p in model.parameters())
    return torch.autocast(place, dtype=dtype, enabled=lower)
