"""The peers of tune.py, each in a process of its own: TRL's SFTTrainer as KAITO v0.12 uses it, and with TRL's own best.

    python sft.py kaito|trl JOB.json RESULT.json

``kaito`` is its fine_tuning.py re-stated (kaito-project/kaito, presets/workspace/tuning/text-generation): batch 1, no
packing, activation checkpointing, embeddings and norms in float32, loss over all tokens, TRL's learning rate, LoRA on
the modules that peft picks; the two lines that ask for CUDA are left out. ``trl`` packs, takes the loss on the
assistant's tokens, keeps activations, and gets our adapter and our learning rate.
"""

import json
import os
import resource
import sys
import time
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig, DataCollatorForLanguageModeling
from trl import SFTConfig, SFTTrainer

# SmolLM2's own template with the marks that TRL wants around what is learned; it cannot add them itself.
TEMPLATE = """{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system
You are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>
' }}{% endif %}{{ '<|im_start|>' + message['role'] + '
' }}{% if message['role'] == 'assistant' %}{% generation %}{{ message['content'] + '<|im_end|>' }}\
{% endgeneration %}{% else %}\
{{ message['content'] + '<|im_end|>' }}{% endif %}{{ '
' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant
' }}{% endif %}"""
NF4 = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True}


def main() -> None:
    kind, job, result = sys.argv[1], json.loads(Path(sys.argv[2]).read_text()), Path(sys.argv[3])
    torch.set_num_threads(job["threads"])
    tokenizer = AutoTokenizer.from_pretrained(job["weights"])
    base = AutoModelForCausalLM.from_pretrained(
        job["weights"],
        dtype=torch.bfloat16,
        quantization_config=BitsAndBytesConfig(**NF4, bnb_4bit_compute_dtype=torch.bfloat16),
    )
    rows = Dataset.from_dict({"messages": job["rows"]})
    trainer = (kaito if kind == "kaito" else trl)(base, tokenizer, rows, job)
    wall, cpu = time.perf_counter(), time.process_time()
    trainer.train()
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    trainer.model.save_pretrained(job["adapter"])
    told = {"cpu_seconds": cpu, "wall_seconds": wall, "peak_mib": peak, "steps": trainer.state.global_step}
    result.write_text(json.dumps(told))


def kaito(base, tokenizer, rows, job):
    model = prepare_model_for_kbit_training(base)
    model = get_peft_model(model, LoraConfig(r=8, lora_alpha=8, lora_dropout=0.0))
    model.config.use_cache = False
    settings = SFTConfig(
        output_dir=job["work"],
        save_strategy="no",
        per_device_train_batch_size=1,
        num_train_epochs=1,
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
    )
    collator = DataCollatorForLanguageModeling(tokenizer=tokenizer, mlm=False)
    return SFTTrainer(
        model=model, processing_class=tokenizer, train_dataset=rows, args=settings, data_collator=collator
    )


def trl(base, tokenizer, rows, job):
    own = tokenizer.apply_chat_template(job["rows"][0], tokenize=False)
    tokenizer.chat_template = TEMPLATE
    assert tokenizer.apply_chat_template(job["rows"][0], tokenize=False) == own
    lora = LoraConfig(r=8, lora_alpha=16, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM")
    settings = SFTConfig(
        output_dir=job["work"],
        save_strategy="no",
        per_device_train_batch_size=1,
        num_train_epochs=1,
        learning_rate=job["learning_rate"],
        warmup_steps=0.05,
        max_length=job["max_length"],
        packing=True,
        assistant_only_loss=True,
        gradient_checkpointing=False,
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
    )
    return SFTTrainer(model=base, processing_class=tokenizer, train_dataset=rows, args=settings, peft_config=lora)


main()
