"""What is supervised under the chat template of each family in the catalogue: the answers and their end tokens.

The models' own tokenizers are not at hand, so that each family's format is stated again here (from the model cards
and tokenizer_config.json of the pinned revisions), over a tokenizer of one token a byte and the family's special ones.
"""

from dataclasses import dataclass
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from presets.catalogue import catalogue, chat_template_text
from steps.chat import IGNORED, encode
from steps.messages import Conversation


@dataclass(frozen=True)
class Family:
    """A format: its template, its special tokens, what ends an answer, whether a system turn has a place of its own."""

    template: str
    specials: tuple[str, ...]
    eos: str
    end: str
    presets: tuple[str, ...]
    system: bool = True


PLAIN = chat_template_text(catalogue()["phi-2"]) or ""
FAMILIES = {
    "chatml": Family(
        "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nYou are helpful.<|im_end|>\n{% endif %}"
        "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
        ("<|im_start|>", "<|im_end|>", "<|endoftext|>"), "<|im_end|>", "<|im_end|>",
        ("smollm2-135m-instruct", "qwen2.5-coder-7b-instruct", "qwen2.5-coder-32b-instruct"),
    ),
    "phi-3": Family(
        "{% for m in messages %}<|{{ m['role'] }}|>\n{{ m['content'] }}<|end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>\n{% else %}{{ eos_token }}{% endif %}",
        ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>", "<|endoftext|>"), "<|endoftext|>", "<|end|>",
        ("phi-3-mini-4k-instruct", "phi-3-mini-128k-instruct", "phi-3.5-mini-instruct", "phi-3-medium-4k-instruct",
         "phi-3-medium-128k-instruct"),
    ),
    "phi-4-mini": Family(
        "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% else %}{{ eos_token }}{% endif %}",
        ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>", "<|endoftext|>"), "<|endoftext|>", "<|end|>",
        ("phi-4-mini-instruct",),
    ),
    "phi-4": Family(
        "{% for m in messages %}<|im_start|>{{ m['role'] }}<|im_sep|>{{ m['content'] }}<|im_end|>{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant<|im_sep|>{% endif %}",
        ("<|im_start|>", "<|im_sep|>", "<|im_end|>", "<|endoftext|>"), "<|im_end|>", "<|im_end|>",
        ("phi-4",),
    ),
    "llama-3": Family(
        "{{ bos_token }}{% if messages[0]['role'] != 'system' %}<|start_header_id|>system<|end_header_id|>\n\n"
        "Today Date: 26 Jul 2024\n\n<|eot_id|>{% endif %}{% for m in messages %}<|start_header_id|>{{ m['role'] }}"
        "<|end_header_id|>\n\n{{ m['content'] | trim }}<|eot_id|>{% endfor %}"
        "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}",
        ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"), "<|eot_id|>", "<|eot_id|>",
        ("llama-3.1-8b-instruct",),
    ),
    "mistral": Family(
        "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{% set said = messages[0]['content'] + '\n\n' %}"
        "{% set rest = messages[1:] %}{% else %}{% set said = '' %}{% set rest = messages %}{% endif %}"
        "{% for m in rest %}{% if m['role'] == 'user' %}[INST] {{ (said if loop.last or loop.index == rest|length - 1"
        " else '') + m['content'] }}[/INST]{% else %} {{ m['content'] | trim }}{{ eos_token }}{% endif %}{% endfor %}",
        ("<s>", "</s>", "[INST]", "[/INST]"), "</s>", "</s>", ("mistral-7b-instruct",), system=False,
    ),
    "deepseek-r1": Family(
        "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'system' %}{{ m['content'] }}"
        "{% elif m['role'] == 'user' %}"
        "<｜User｜>{{ m['content'] }}{% else %}<｜Assistant｜>{{ m['content'].split('</think>')[-1] }}{{ eos_token }}"
        "{% endif %}{% endfor %}{% if add_generation_prompt %}<｜Assistant｜><think>\n{% endif %}",
        ("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>", "<think>", "</think>"),
        "<｜end▁of▁sentence｜>", "<｜end▁of▁sentence｜>",
        ("deepseek-r1-distill-llama-8b", "deepseek-r1-distill-qwen-14b"),
    ),
    "plain": Family(
        PLAIN, ("<|endoftext|>",), "<|endoftext|>", "<|endoftext|>", ("falcon-7b", "falcon-40b", "mistral-7b", "phi-2"),
    ),
}  # fmt: skip


def tokenizer_of(family: Family) -> Any:
    """Return a tokenizer of one token a byte, with the family's special tokens and template."""
    alphabet = {letter: number for number, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    core = Tokenizer(models.BPE(vocab=alphabet, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    made = PreTrainedTokenizerFast(tokenizer_object=core, eos_token=family.eos, bos_token=family.specials[0])
    made.add_special_tokens({"additional_special_tokens": list(family.specials)})
    made.chat_template = family.template
    return made


def supervised(family: Family, *turns: tuple[str, str]) -> str:
    tokenizer = tokenizer_of(family)
    messages = [{"role": role, "content": content} for role, content in turns]
    row = encode(tokenizer, Conversation(messages), assistant_only=True, max_tokens=999)
    text: str = tokenizer.decode([label for label in row.labels if label != IGNORED])
    return text.replace(f"{family.end} ", family.end)


def test_every_preset_belongs_to_a_family():
    named = [preset for family in FAMILIES.values() for preset in family.presets]
    assert sorted(named) == sorted(catalogue())


@pytest.mark.parametrize("name", FAMILIES)
def test_the_answer_and_its_end_token_are_supervised(name):
    family = FAMILIES[name]
    said = supervised(family, ("user", "2 + 2?"), ("assistant", "It is 4."))
    assert said.strip() == f"It is 4.{family.end}"


@pytest.mark.parametrize("name", FAMILIES)
def test_every_answer_of_several_turns_is_supervised(name):
    family = FAMILIES[name]
    turns = (("user", "same"), ("assistant", "same"), ("user", "and?"), ("assistant", "No."))
    said = supervised(family, *turns)
    assert said.replace(" ", "") == f"same{family.end}No.{family.end}"


@pytest.mark.parametrize("name", FAMILIES)
def test_a_system_turn_is_not_supervised(name):
    family = FAMILIES[name]
    said = supervised(family, ("system", "Be brief."), ("user", "hi"), ("assistant", "Hi."))
    assert said.strip() == f"Hi.{family.end}"
