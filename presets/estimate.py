"""How long will the training take, and what will it cost?  Ranges, each with what it assumes.

Work: of a token 4 operations for each weight of the linear layers (forward 2, gradients of activations 2; adapters are
too small to count), 2 more for those that are computed again, and the same for the head. A card does a share of its
dense peak: 15 to 45 %, as published LoRA trainings have it; not measured by us on a card.
"""

from dataclasses import dataclass

from presets.catalogue import Shape
from presets.gpus import Sku
from presets.levers import Levers
from presets.recipe import TrainingRecipe

SHARE_OF_PEAK = (0.15, 0.45)
NODE_HOURS = (0.1, 0.4)  # of the node beside the training: boot, loading, both evaluations
MILLION = 1_000_000


@dataclass(frozen=True, slots=True)
class Range:
    """From a low to a high value."""

    low: float
    high: float

    def __str__(self) -> str:
        """Return both, with as many digits as they deserve."""
        return f"{self.low:.2g} to {self.high:.2g}" if self.high < 100 else f"{self.low:.0f} to {self.high:.0f}"


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a training on one machine takes."""

    tokens: int | None  # that are trained on; None: not known before the rows are read
    tokens_per_second: Range
    hours: Range  # of the node; of a million tokens where tokens are not known
    usd: Range | None  # None: the price is not known
    assumptions: tuple[str, ...]


def flops_per_token(shape: Shape, recompute_every: int) -> float:
    """Return the operations of one training token."""
    head = shape.hidden * shape.vocabulary
    again = 1 / recompute_every if recompute_every else 0.0
    return 4.0 * (shape.linear_parameters + head) + 2.0 * again * shape.linear_parameters


def estimate(shape: Shape, training: TrainingRecipe, levers: Levers, sku: Sku, dataset_tokens: int | None) -> Estimate:
    """Return hours and dollars on ``sku``; ``dataset_tokens`` are those of one epoch, as the audit tells them."""
    peak = sku.gpu.tflops * 1e12 * sku.count / flops_per_token(shape, levers.recompute_every)
    speed = Range(SHARE_OF_PEAK[0] * peak, SHARE_OF_PEAK[1] * peak)
    tokens, how = _tokens(training, sku, dataset_tokens)
    if tokens is None:
        hours = Range(MILLION / speed.high / 3600, MILLION / speed.low / 3600)
    else:
        hours = Range(tokens / speed.high / 3600 + NODE_HOURS[0], tokens / speed.low / 3600 + NODE_HOURS[1])
    price = sku.price
    usd = Range(hours.low * price.usd_per_hour, hours.high * price.usd_per_hour) if price else None
    assumptions = (
        how,
        f"{SHARE_OF_PEAK[0]:.0%} to {SHARE_OF_PEAK[1]:.0%} of {sku.gpu.tflops:g} TFLOP/s a card",
        *([f"{NODE_HOURS[0]:g} to {NODE_HOURS[1]:g} h of boot, loading and scoring"] if tokens else []),
        f"on demand in {price.region}, {price.source} ({price.date})" if price else "no price is known for the machine",
    )
    return Estimate(tokens, speed, hours, usd, assumptions)


def _tokens(training: TrainingRecipe, sku: Sku, dataset_tokens: int | None) -> tuple[int | None, str]:
    step = training.batch_size * training.gradient_accumulation_steps * training.max_length_tokens * sku.count
    if training.max_steps > 0:
        return training.max_steps * step, f"{training.max_steps} steps of full packs"
    if dataset_tokens is not None:
        return int(dataset_tokens * training.epochs), f"{training.epochs:g} epochs of {dataset_tokens:,} tokens"
    return None, "of a million tokens: how many there are is known when the rows are read"
