"""How one optimiser step is cut to fit into memory: ever less hungry ways to take the same step."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from presets.recipe import TrainingRecipe

FILLED = 0.9  # of a GPU's memory that a plan may fill: allocators round and fragment
FILLED_FOR_SPEED = 0.8  # with weights that could as well be kept in four bits
FOUR_BITS = 4
RECOMPUTED_EVERY = (4, 3, 2, 1)


@dataclass(frozen=True, slots=True)
class Levers:
    """What memory holds at a time; the optimiser step itself stays the same."""

    packs: int  # of one micro-batch
    accumulation_steps: int
    recompute_every: int = 0  # of so many layers one is computed again in the backward pass; 0: none, 1: all
    dequantise_once: bool = False  # four-bit weights are kept as the 16-bit numbers that they stand for

    def __str__(self) -> str:
        """Return them in words."""
        said = [f"{self.packs} pack{'s' if self.packs != 1 else ''} at a time"]
        if self.accumulation_steps > 1:
            said.append(f"{self.accumulation_steps} times a step")
        if self.recompute_every:
            every = "all layers" if self.recompute_every == 1 else f"one layer in {self.recompute_every}"
            said.append(f"{every} computed again")
        if self.dequantise_once:
            said.append("weights dequantised once")
        return ", ".join(said)


def first(training: TrainingRecipe) -> Levers:
    """Return what the training config asks for."""
    recompute = 1 if training.gradient_checkpointing else 0
    return Levers(training.batch_size, training.gradient_accumulation_steps, recompute)


def ladder(levers: Levers) -> Iterator[Levers]:
    """Yield ``levers``, then fewer packs at a time, then ever more layers that are computed again.

    A smaller micro-batch costs less speed than recomputation, so it comes first.
    """
    yield levers
    while levers.packs > 1:
        fewer = next(n for n in range(levers.packs // 2, 0, -1) if levers.packs % n == 0)
        times = levers.accumulation_steps * levers.packs // fewer
        levers = replace(levers, packs=fewer, accumulation_steps=times)
        yield levers
    for every in RECOMPUTED_EVERY:
        if not levers.recompute_every or every < levers.recompute_every:
            levers = replace(levers, recompute_every=every)
            yield levers


def choose(training: TrainingRecipe, bits: int, need: Callable[[Levers], int], memory_bytes: int) -> Levers | None:
    """Return the fastest way to take a step in ``memory_bytes``, None when even the least hungry does not fit.

    ``need`` tells the bytes that a way needs, ``bits`` how the base's weights are kept.
    """
    fitting = (levers for levers in ladder(first(training)) if need(levers) <= FILLED * memory_bytes)
    levers = next(fitting, None)
    if levers is None or bits != FOUR_BITS:
        return levers
    faster = replace(levers, dequantise_once=True)
    return faster if need(faster) <= FILLED_FOR_SPEED * memory_bytes else levers
