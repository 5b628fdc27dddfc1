"""What a training did, as one page: losses over its steps, base against tuned, answers, speed, every value's origin.

Pure: the same figures give the same text. Speed and memory are this machine's, so the page is no part of the adapter.
"""

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

from presets.levers import Levers
from steps.html_page import boxes, html_page, table

WIDTH, HEIGHT, LEFT, EDGE = 720, 240, 44, 24
GIB, TICKS = 1 << 30, 5
MODELS = ("base", "tuned")
PARTS = ("model", "data", "quantization", "lora", "training", "evaluation")


def report(title: str, figures: Mapping[str, Any], recipe: Mapping[str, Any]) -> str:
    """Return the page of a run; ``recipe`` holds the parts that the step was told, and ``origins`` of their values."""
    base, tuned = figures["base"], figures["tuned"]
    outcome = f"held-out loss {base['loss']:.3f} → {tuned['loss']:.3f}" if base and tuned else "no rows were held out"
    return html_page(
        title,
        "tuning report",
        [
            f"<h1>{escape(title)}: {outcome}</h1>",
            boxes(_summary(figures)),
            _way(figures),
            "<h2>Loss</h2>",
            _curve(figures),
            _comparison(figures),
            _answers(figures["answers"]),
            "<h2>Values</h2>",
            table(("Value", "", "Decided by"), _values(recipe)),
        ],
    )


def _summary(figures: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    base, tuned = figures["base"], figures["tuned"]
    if base and tuned:
        yield "times the base's loss", f"{tuned['loss'] / base['loss']:.2f}"
    yield "steps", f"{figures['steps']:,}" + ("" if not figures["stopped_by"] else f" of {figures['total_steps']:,}")
    yield "tokens a second", f"{figures['tokens_per_second']:,.0f}"
    yield "seconds of training", f"{figures['train_seconds']:,.0f}"
    yield "GiB at most in use", f"{figures['peak_memory_bytes'] / GIB:.1f}"
    yield "of the tokens spared: rows share beginnings", f"{1 - figures['computed_tokens'] / figures['tokens']:.0%}"


def _way(figures: Mapping[str, Any]) -> str:
    """Return in words how a step was cut, on how many processes, and what ended the training early."""
    levers = dict(figures["levers"])
    processes = levers.pop("processes")
    said = f"A step: {Levers(**levers)}"
    if processes > 1:
        said += f", in each of {processes} processes"
    if figures["stopped_by"]:
        said += f". Ended by its {figures['stopped_by']}, and packed as it was"
    return f"<p>{escape(said)}.</p>"


def _curve(figures: Mapping[str, Any]) -> str:
    """Draw the training loss as a line, held-out losses as dots, the base's as a dashed line."""
    trained = [(float(e["step"]), float(e["loss"])) for e in figures["history"]]
    held = [(float(e["step"]), float(e["loss"])) for e in figures["scored"]]
    base = figures["base"]["loss"] if figures["base"] else None
    losses = [loss for _, loss in (*trained, *held)] + ([base] if base is not None else [])
    if not losses:
        return ""
    low, high = min(losses), max(losses)
    span, last = (high - low) or 1.0, max(step for step, _ in (*trained, *held))

    def at(step: float, loss: float) -> tuple[str, str]:
        x = LEFT + (WIDTH - LEFT - EDGE) * step / last
        return f"{x:.1f}", f"{EDGE + (HEIGHT - 2 * EDGE) * (high - loss) / span:.1f}"

    parts = []
    for number in range(TICKS):
        loss = low + span * number / (TICKS - 1)
        _, y = at(0, loss)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - EDGE}" y1="{y}" y2="{y}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y}" text-anchor="end" dominant-baseline="middle">{loss:.2f}</text>')
        x, _ = at(last * number / (TICKS - 1), low)
        parts.append(f'<text x="{x}" y="{HEIGHT - 6}" text-anchor="middle">{last * number / (TICKS - 1):.0f}</text>')
    if base is not None:
        _, y = at(0, base)
        parts.append(f'<line class="base" x1="{LEFT}" x2="{WIDTH - EDGE}" y1="{y}" y2="{y}"/>')
        parts.append(f'<text x="{LEFT + 4}" y="{float(y) + 13:.1f}">held out, base</text>')
    parts.append(f'<polyline class="train" points="{" ".join(",".join(at(*point)) for point in trained)}"/>')
    for step, loss in held:
        x, y = at(step, loss)
        parts.append(f'<circle class="held" cx="{x}" cy="{y}" r="4"><title>held out: {loss:.4f}</title></circle>')
    told = "Line: training loss of each step. Dots: held-out loss after each epoch; the best is kept."
    head = f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="Loss by step">'
    return f"{head}{''.join(parts)}</svg><p>{told}</p>"


def _comparison(figures: Mapping[str, Any]) -> str:
    base, tuned = figures["base"], figures["tuned"]
    if not base or not tuned:
        return ""
    names = {"loss": "loss", "end_loss": "loss of the end token", "perplexity": "perplexity"}
    rows: list[tuple[str, ...]] = [(text, f"{base[name]:.3f}", f"{tuned[name]:.3f}") for name, text in names.items()]
    ended = [f"{sum(a[f'{who}_stopped'] for a in figures['answers'])} of {len(figures['answers'])}" for who in MODELS]
    rows.append(("answers that ended by themselves", *ended))
    paired = f"{figures['difference']:+.4f} ± {figures['standard_error']:.4f} (standard error)"
    return (
        f"<h2>Base and tuned, on {figures['held_out_rows']} held-out rows</h2>"
        f"{table(('', *MODELS), rows)}<p>Paired difference of the rows' losses: {paired}.</p>"
    )


def _answers(answers: Sequence[Mapping[str, Any]]) -> str:
    if not answers:
        return ""
    rows = [(a["question"], *(_said(a, who) for who in MODELS)) for a in answers]
    return f"<h2>Greedy answers</h2>{table(('question', *MODELS), rows)}"


def _said(answer: Mapping[str, Any], who: str) -> str:
    return str(answer[who]) + ("" if answer[f"{who}_stopped"] else " … (cut)")


def _values(recipe: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    origins = recipe.get("origins", {})
    for part in PARTS:
        for name, value in recipe.get(part, {}).items():
            text = "-" if value is None else str(value)
            yield f"{part}.{name}", text, str(origins.get(f"{part}.{name}", "default"))
