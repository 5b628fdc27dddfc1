"""How is a step cut on this machine?  By the memory that its GPU has free; on a CPU as asked for."""

from dataclasses import replace
from pathlib import Path

import torch
from transformers import AutoConfig

from presets.catalogue import find_model
from presets.levers import Levers, choose, first, ladder
from presets.memory import memory_need
from presets.recipe import LoraRecipe, ModelRecipe, QuantizationRecipe, TrainingRecipe
from steps import logs, processes
from steps.model_shape import shape_of

STANDARD_TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def ways_to_train(
    weights: Path, model: ModelRecipe, quantization: QuantizationRecipe, lora: LoraRecipe, training: TrainingRecipe
) -> list[Levers]:
    """Return the way to take a step that the memory estimate chooses, and ever less hungry ones should it be wrong."""
    asked = first(training)
    if not torch.cuda.is_available():
        return list(ladder(asked))
    processes.take_gpu()
    shape = shape_of(AutoConfig.from_pretrained(weights, local_files_only=True))
    targets = _targets(lora, model)
    free, _ = torch.cuda.mem_get_info()
    chosen = choose(
        training,
        quantization.bits,
        lambda levers: memory_need(shape, targets, quantization, lora, training, levers).total,
        free,
    )
    every = list(ladder(asked))
    # The estimate is an upper bound: where it says that nothing fits, the least hungry way is tried all the same.
    start = every.index(replace(chosen, dequantise_once=False)) if chosen else len(every) - 1
    dequantised = bool(chosen and chosen.dequantise_once)
    ways = [replace(way, dequantise_once=dequantised) for way in every[start:]]
    logs.event("chosen", step_cut=str(ways[0]), free_bytes=free, fits=chosen is not None)
    return ways


def _targets(lora: LoraRecipe, model: ModelRecipe) -> tuple[str, ...]:
    if not isinstance(lora.target_modules, str):
        return tuple(lora.target_modules)
    known = find_model(model.preset)
    named = known.lora_targets if known else ()
    return named if named and named != ("all-linear",) else STANDARD_TARGETS
