"""Tokens a second on a GPU, random weights in the shapes of real models: kaiflow against KAITO's path and TRL.

    benchmarks/tune_gpu.sh          brings what is needed, checks parity, and runs this
    python benchmarks/tune_gpu.py --small     the same code with a toy model: checks the script, measures nothing

Rows of log-normal length (mean about 200 tokens, at most 1,024), two fifths of each supervised, no shared beginnings.
Every contestant trains the same rows on the same nf4 base for some seconds in turn, the first steps not counted. Real
tokens: padding does not count. Of the peak: 4 operations a weight (decoder and head) and token, against 989 TFLOP/s.
"""

import argparse
import gc
import json
import math
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from transformers import AutoConfig, AutoModelForCausalLM, Trainer, TrainerCallback, TrainingArguments

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
MODELS: dict[str, dict[str, Any]] = {
    "phi-3.5-mini": {"model_type": "llama", "hidden_size": 3072, "intermediate_size": 8192, "num_hidden_layers": 32,
                     "num_attention_heads": 32, "num_key_value_heads": 32, "vocab_size": 32064},
    "llama-3.1-8b": {"model_type": "llama", "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
                     "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256},
}  # fmt: skip
TOY: dict[str, dict[str, Any]] = {
    "toy": {"model_type": "llama", "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
            "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 512},
}  # fmt: skip
ROWS, LONGEST, PACK, SUPERVISED = 4000, 1024, 8192, 0.4
WARM_UP_STEPS = 4
PEAK_FLOPS = 989e12  # dense bfloat16 of an H100 SXM
ENDLESS = 10_000


@dataclass(frozen=True)
class Found:
    """One turn of one contestant."""

    tokens_per_second: float
    peak_gib: float


class Clock(TrainerCallback):
    """Stops after some seconds, and knows how long the steps behind the warm-up took."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.steps, self.began, self.took = seconds, 0, 0.0, 0.0

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        """Count the step."""
        if state.global_step < WARM_UP_STEPS:
            return
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        now = time.perf_counter()
        if state.global_step == WARM_UP_STEPS:
            self.began = now
            return
        self.steps, self.took = state.global_step - WARM_UP_STEPS, now - self.began
        control.should_training_stop = self.took > self.seconds


def main() -> None:
    """Run all in turn, print a table and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--seconds", type=float, default=15.0, help="of one turn")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--models", default=",".join(MODELS))
    options = parser.parse_args()
    if not options.small and not torch.cuda.is_available():
        print("There is no GPU here: nothing was measured.")
        return
    models = TOY if options.small else {name: MODELS[name] for name in options.models.split(",")}
    contestants: dict[str, Callable[..., Found]] = {"kaiflow": ours, "KAITO-like": kaito_like}
    if _has("trl") and _has("datasets"):
        contestants["TRL packed"] = trl_packed
    figures = {}
    for name, shape in models.items():
        rows = make_rows(shape["vocab_size"], 60 if options.small else ROWS)
        turns: dict[str, list[Found]] = {who: [] for who in contestants}
        for _ in range(options.rounds):
            for who, run in contestants.items():
                turns[who].append(run(shape, rows, options.seconds))
                _forget()
                Console().print(f"{name}, {who}: {turns[who][-1]}")
        figures[name] = tell(name, shape, turns)
    if options.small:
        print("The script runs; a toy on this machine says nothing of speed.")
        return
    body = {"date": date.today().isoformat(), "device": torch.cuda.get_device_name(), "torch": torch.__version__}
    (HERE / "tune_gpu.json").write_text(json.dumps({**body, "models": figures}, indent=1) + "\n")


def make_rows(vocabulary: int, count: int) -> list[Any]:
    """Return rows of random tokens with chat's lengths."""
    from steps.chat import IGNORED, Encoded

    chance = random.Random(5)
    rows = []
    for _ in range(count):
        length = min(LONGEST, max(8, round(chance.lognormvariate(math.log(150), 0.75))))
        ids = tuple(chance.randrange(3, vocabulary) for _ in range(length))
        asked = round(length * (1 - SUPERVISED))
        rows.append(Encoded(ids, (IGNORED,) * asked + ids[asked:]))
    return rows


def base_model(shape: dict[str, Any], attention: str) -> Any:
    """Return a frozen model of random weights, its decoder's matrices in nf4 on a GPU."""
    options = {key: value for key, value in shape.items() if key != "model_type"}
    config = AutoConfig.for_model(shape["model_type"], **options, pad_token_id=0, bos_token_id=1, eos_token_id=2)
    on_gpu = torch.cuda.is_available()
    torch.manual_seed(0)
    with torch.device("cuda" if on_gpu else "cpu"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16, attn_implementation=attention)
    if on_gpu:
        _quantise(model)
    return model.requires_grad_(False).eval()


def _quantise(model: Any) -> None:
    from bitsandbytes.nn import Linear4bit, Params4bit

    for layer in model.model.layers:
        for name, module in [(n, m) for n, m in layer.named_modules() if type(m) is torch.nn.Linear]:
            kept = Linear4bit(
                module.in_features, module.out_features, bias=False, compute_dtype=torch.bfloat16, quant_type="nf4",
                device="meta",
            )  # fmt: skip
            kept.weight = Params4bit(module.weight.data.cpu(), requires_grad=False, quant_type="nf4").cuda()
            parent, _, child = name.rpartition(".")
            setattr(layer.get_submodule(parent), child, kept)
    model.is_loaded_in_4bit = True


def ours(shape: dict[str, Any], rows: list[Any], seconds: float) -> Found:
    """Train as the tune step does on a GPU: the step cut by the memory estimate."""
    from presets.levers import Levers, choose
    from presets.memory import memory_need
    from presets.recipe import DataRecipe, LoraRecipe, QuantizationRecipe, TrainingRecipe
    from steps import segment_attention
    from steps.adapter import add_adapter
    from steps.base_model import dequantise_once
    from steps.contract import Context
    from steps.liger import use_liger
    from steps.model_shape import shape_of
    from steps.training import Task, train
    from steps.ways import STANDARD_TARGETS

    segment_attention.register()
    lora, bits = LoraRecipe(8, 16, 0.0, STANDARD_TARGETS, {}), 4 if torch.cuda.is_available() else 16
    recipe = TrainingRecipe(ENDLESS, -1, 1, 1, 2e-4, "linear", 0, PACK, True, True, False, 1, {})
    base = base_model(shape, segment_attention.NAME)
    quantisation = QuantizationRecipe(bits, "nf4", True, "bfloat16", 6.0, (), False)
    free = torch.cuda.mem_get_info()[1] if torch.cuda.is_available() else 1 << 40
    known = shape_of(base.config)

    def need(way: Levers) -> int:
        return memory_need(known, STANDARD_TARGETS, quantisation, lora, recipe, way).total

    way = choose(recipe, bits, need, free)
    assert way is not None
    if way.dequantise_once:
        dequantise_once(base, torch.bfloat16)
    use_liger(base)
    model, clock = add_adapter(base, lora, 1), Clock(seconds)
    data = DataRecipe((), None, (), None, None, None, None, None, True, 42, 0.0)
    with tempfile.TemporaryDirectory() as folder:
        context = Context(Path(folder), _nobody)
        told = train(model, Task(rows, recipe, data, 0, Path(folder)), [way], context, [clock])
    return _found(clock, told["tokens"] / told["packs"])


def kaito_like(shape: dict[str, Any], rows: list[Any], seconds: float) -> Found:
    """Train as KAITO v0.12 does: one row at a time, embeddings and norms in float32, activations recomputed."""
    from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training

    model = prepare_model_for_kbit_training(base_model(shape, "sdpa"))
    model = get_peft_model(model, LoraConfig(r=8, lora_alpha=8, target_modules=["q_proj", "v_proj"]))
    model.config.use_cache = False
    examples = [{"input_ids": list(row.ids), "labels": list(row.ids)} for row in rows]

    def collate(chosen: list[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
        return {key: torch.tensor([example[key] for example in chosen]) for key in ("input_ids", "labels")}

    return _with_trainer(Trainer, model, examples, collate, seconds, gradient_checkpointing=True)


def trl_packed(shape: dict[str, Any], rows: list[Any], seconds: float) -> Found:
    """Train with TRL's own best: packed, the loss where it is supervised, activations kept."""
    from datasets import Dataset
    from peft import LoraConfig
    from trl import SFTConfig, SFTTrainer

    told = {"input_ids": [list(r.ids) for r in rows], "labels": [list(r.labels) for r in rows]}
    clock = Clock(seconds)
    with tempfile.TemporaryDirectory() as folder:
        settings = SFTConfig(
            output_dir=folder, save_strategy="no", per_device_train_batch_size=1, num_train_epochs=ENDLESS,
            max_length=PACK, packing=True, gradient_checkpointing=False, report_to="none", disable_tqdm=True,
            bf16=torch.cuda.is_available(), use_cpu=not torch.cuda.is_available(),
        )  # fmt: skip
        lora = LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM")
        trainer = SFTTrainer(
            model=base_model(shape, "sdpa"), train_dataset=Dataset.from_dict(told), args=settings, peft_config=lora,
            processing_class=_no_tokenizer(),
            callbacks=[clock],
        )  # fmt: skip
        packs = len(trainer.train_dataset)
        trainer.train()
    return _found(clock, sum(len(row.ids) for row in rows) / packs)


def _with_trainer(
    kind: type, model: Any, examples: list[Any], collate: Callable[..., Any], seconds: float, **options: Any
) -> Found:
    clock = Clock(seconds)
    on_gpu = torch.cuda.is_available()
    with tempfile.TemporaryDirectory() as folder:
        settings = TrainingArguments(
            output_dir=folder, save_strategy="no", per_device_train_batch_size=1, num_train_epochs=ENDLESS,
            report_to="none", disable_tqdm=True, bf16=on_gpu, use_cpu=not on_gpu, remove_unused_columns=False,
            **options,
        )  # fmt: skip
        kind(model=model, args=settings, train_dataset=examples, data_collator=collate, callbacks=[clock]).train()
    return _found(clock, statistics.mean(len(example["input_ids"]) for example in examples))


def _found(clock: Clock, tokens_per_step: float) -> Found:
    peak = torch.cuda.max_memory_allocated() / (1 << 30) if torch.cuda.is_available() else 0.0
    return Found(clock.steps * tokens_per_step / clock.took, peak)


def _no_tokenizer() -> Any:
    """Return what TRL wants to have, though the rows are tokens already."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.WordLevel({"<pad>": 0, "<s>": 1, "</s>": 2}, unk_token="<pad>"))
    return PreTrainedTokenizerFast(tokenizer_object=core, pad_token="<pad>", bos_token="<s>", eos_token="</s>")


def _nobody(done: int, total: int) -> None:
    """Hear nothing."""


def _forget() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def _has(module: str) -> bool:
    import importlib.util

    return importlib.util.find_spec(module) is not None


def tell(name: str, shape: dict[str, Any], turns: dict[str, list[Found]]) -> dict[str, Any]:
    """Print the table of one model and return its figures."""
    table = Table("model", "contestant", "tokens / s", "ours / its", "of the peak", "GiB at most")
    hidden, layers = shape["hidden_size"], shape["num_hidden_layers"]
    keys = hidden * shape["num_key_value_heads"] // shape["num_attention_heads"]
    weights = layers * hidden * (2 * hidden + 2 * keys + 3 * shape["intermediate_size"]) + hidden * shape["vocab_size"]
    middle = {who: statistics.median(turn.tokens_per_second for turn in found) for who, found in turns.items()}
    for who, speed in middle.items():
        share, peak = 4 * weights * speed / PEAK_FLOPS, max(turn.peak_gib for turn in turns[who])
        table.add_row(name, who, f"{speed:,.0f}", f"{middle['kaiflow'] / speed:.2f} x", f"{share:.1%}", f"{peak:.1f}")
    Console(width=120).print(table)
    return {
        who: {"tokens_per_second": [t.tokens_per_second for t in found], "peak_gib": [t.peak_gib for t in found],
              "share_of_peak": 4 * weights * middle[who] / PEAK_FLOPS}
        for who, found in turns.items()
    }  # fmt: skip


if __name__ == "__main__":
    main()
