"""The adapter's README.md: what it is, what it was made from, and how it did, in the hub's card format."""

from pathlib import Path
from typing import Any

import yaml

from presets.recipe import DataRecipe, ModelRecipe, TrainingRecipe
from steps.sources import describe


def write_card(
    folder: Path, model: ModelRecipe, data: DataRecipe, training: TrainingRecipe, figures: dict[str, Any]
) -> None:
    """Write ``README.md`` into ``folder``."""
    (folder / "README.md").write_text(card(model, data, training, figures))


def card(model: ModelRecipe, data: DataRecipe, training: TrainingRecipe, figures: dict[str, Any]) -> str:
    """Return the text of the card."""
    front = {
        "base_model": model.hugging_face_id,
        "base_model_relation": "adapter",
        "library_name": "peft",
        "pipeline_tag": "text-generation",
        "license": model.license,
        "tags": ["lora", "kaiflow"],
    }
    volume = ["a volume"] if data.volume_source is not None else []
    named = [*map(describe, data.urls), *([data.image] if data.image else []), *volume]
    sources = "\n".join(f"- {name}" for name in named)
    return f"""---
{yaml.safe_dump(front, sort_keys=False).strip()}
---
# A LoRA adapter for {model.hugging_face_id}

Base revision: `{model.revision}`. Trained on:

{sources}

{_losses(figures)}

| training | |
| --- | --- |
| steps | {_steps(figures)} |
| learning rate | {training.learning_rate:g}, {training.scheduler} |
| tokens of a pack | {training.max_length_tokens} |
| seed | {training.seed} |

{_answers(figures)}
## Limits

The figures hold for the held-out rows of this dataset. Nothing else was tested.
"""


def _steps(figures: dict[str, Any]) -> str:
    if not figures["stopped_by"]:
        return str(figures["steps"])
    return f"{figures['steps']} of {figures['total_steps']}, ended by its {figures['stopped_by']}"


def _losses(figures: dict[str, Any]) -> str:
    base, tuned = figures["base"], figures["tuned"]
    if not base or not tuned:
        return "No rows were held out: the adapter was not evaluated."
    return f"""| {figures["held_out_rows"]} held-out rows | base | tuned |
| --- | --- | --- |
| loss | {base["loss"]:.3f} | {tuned["loss"]:.3f} |
| loss of the end token | {base["end_loss"]:.3f} | {tuned["end_loss"]:.3f} |
| perplexity | {base["perplexity"]:.1f} | {tuned["perplexity"]:.1f} |

Paired difference: {figures["difference"]:+.3f} ± {figures["standard_error"]:.3f} (standard error)."""


def _answers(figures: dict[str, Any]) -> str:
    rows = "".join(
        f"| {_cell(a['question'])} | {_cell(a['base'])} | {_cell(a['tuned'])} |\n" for a in figures["answers"]
    )
    return f"## Greedy answers\n\n| question | base | tuned |\n| --- | --- | --- |\n{rows}" if rows else ""


def _cell(text: str) -> str:
    flat = " ".join(text.split()).replace("|", "\\|")
    return flat if len(flat) <= 160 else flat[:157] + "..."
