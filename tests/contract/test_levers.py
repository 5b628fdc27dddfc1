"""Every lever gives the loss and the gradients of the plain path: one row at a time, peft's layers, whole logits."""

import random
from itertools import pairwise
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM

from steps import segment_attention
from steps.adapter import trainable
from steps.batches import Form, collate, placed
from steps.chat import IGNORED, Encoded
from steps.families import sharing_packs
from steps.fused_lora import fuse
from steps.loss import token_losses
from steps.segment_attention import in_use

SMALL = {
    "vocab_size": 97, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
GROUPED = {"num_key_value_heads": 2}
# The architectures of the catalogue.
ARCHITECTURES = {
    "llama": GROUPED, "mistral": GROUPED, "qwen2": GROUPED, "phi3": GROUPED, "phi": {},
    "falcon": {"new_decoder_architecture": True, "num_kv_heads": 2, "alibi": False},
}  # fmt: skip


def built(architecture, targets="all-linear", **options):
    torch.manual_seed(0)
    segment_attention.register()
    config = AutoConfig.for_model(architecture, **{**SMALL, **ARCHITECTURES[architecture], **options})
    kind = "sdpa" if architecture == "falcon" else segment_attention.NAME
    base = AutoModelForCausalLM.from_config(config, attn_implementation=kind).requires_grad_(False)
    model = get_peft_model(base, LoraConfig(r=4, lora_alpha=8, target_modules=targets, task_type="CAUSAL_LM"))
    for parameter in trainable(model):
        torch.nn.init.normal_(parameter, std=0.2)
    return model.train()


def chat_rows(seed=3):
    """Rows as templates make them: a common beginning, passages that several ask about, answers of their own."""
    chance = random.Random(seed)

    def some(count):
        return [chance.randrange(3, 97) for _ in range(count)]

    trunk, passages, rows = some(6), [some(60), some(55)], []
    for number in range(14):
        asked = [*trunk, *(passages[number % 2] if number < 9 else []), *some(chance.randint(1, 9))]
        answer = [*some(chance.randint(1, 7)), 2]
        rows.append(Encoded(tuple(asked + answer), tuple([IGNORED] * len(asked) + answer)))
    return rows


def gradients(model, packs, form: Form = "segments", *, share=True):
    model.zero_grad()
    total = torch.tensor(0.0)
    for pack in packs:
        losses, _ = token_losses(model, collate(pack, 0, form, share=share))
        losses.sum().backward()
        total += losses.detach().sum()
    return total.item(), torch.cat([p.grad.flatten() for p in trainable(model) if p.grad is not None])


def assert_same(found, expected):
    assert found[0] == pytest.approx(expected[0], rel=1e-5)
    assert torch.nn.functional.cosine_similarity(found[1], expected[1], dim=0).item() > 0.99999
    assert (found[1].norm() / expected[1].norm()).item() == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_shared_beginnings_and_packs_give_the_loss_and_gradients_of_single_rows(architecture):
    model, rows = built(architecture), chat_rows()
    form = "segments" if in_use(model) else "dense"
    one_by_one = gradients(model, [[[row]] for row in rows], form, share=False)
    packs = [[rows[i] for i in pack] for pack in sharing_packs(rows, 128, seed=1)]
    assert_same(gradients(model, [[pack] for pack in packs], form), one_by_one)
    assert_same(gradients(model, [packs], form), one_by_one)  # several packs a batch, padded
    assert sum(collate([pack], 0, form)["input_ids"].numel() for pack in packs) < sum(len(r.ids) for r in rows)


def test_the_dense_mask_says_what_the_segments_say():
    model, rows = built("llama"), chat_rows()
    packs = [rows[:8], rows[8:]]
    assert_same(gradients(model, [packs], "dense"), gradients(model, [packs]))


def test_single_rows_agree_with_the_models_own_loss():
    model, rows = built("llama"), chat_rows()
    for row in rows[:4]:
        losses, _ = token_losses(model, collate([[row]], 0))
        own = model(input_ids=torch.tensor([row.ids]), labels=torch.tensor([row.labels])).loss
        assert losses.mean().item() == pytest.approx(own.item(), rel=1e-5)


@pytest.mark.parametrize("architecture", ["llama", "phi"])  # with grouped keys and without
def test_short_rows_are_attended_as_torch_does(architecture, monkeypatch):
    model, rows = built(architecture), chat_rows()
    ours = gradients(model, [[rows]])
    monkeypatch.setattr(segment_attention, "SMALL_PRODUCTS", 0)
    assert_same(ours, gradients(model, [[rows]]))


def test_segments_are_never_ignored_unseen():
    base = AutoModelForCausalLM.from_config(AutoConfig.for_model("llama", **SMALL), attn_implementation="sdpa")
    with pytest.raises(ValueError, match="knows none"):
        token_losses(base, collate([chat_rows()[:2]], 0))


def flash_attention(query, key, value, query_starts, key_starts, most_q, most_k, *, scale, window_size, enable_gqa):
    """Do what torch's variable-length kernel documents, row by row: the last query looks at the last key."""
    assert window_size == (-1, 0)
    assert query_starts.dtype == key_starts.dtype == torch.int32
    assert enable_gqa == (query.shape[1] != key.shape[1])
    rows = []
    for (a, b), (c, d) in zip(pairwise(query_starts.tolist()), pairwise(key_starts.tolist()), strict=True):
        assert b - a <= most_q
        assert d - c <= most_k
        seen = torch.ones(b - a, d - c, dtype=torch.bool).tril((d - c) - (b - a))
        q, k, v = (x.transpose(0, 1)[None] for x in (query[a:b], key[c:d], value[c:d]))
        found = torch.nn.functional.scaled_dot_product_attention(
            q, k, v, attn_mask=seen, scale=scale, enable_gqa=enable_gqa
        )
        rows.append(found[0].transpose(0, 1))
    return torch.cat(rows)


@pytest.mark.parametrize("architecture", ["llama", "phi3"])
def test_ragged_attention_is_told_what_the_segments_are_told(architecture, monkeypatch):
    """The kernel itself runs on CUDA alone; here a plain function stands for it."""
    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", flash_attention)
    model, rows = built(architecture), chat_rows()
    packs = [[rows[i] for i in pack] for pack in sharing_packs(rows, 160, 1)]
    assert len(packs) > 1
    assert_same(gradients(model, [packs], "ragged"), gradients(model, [packs]))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_ragged_attention_on_a_gpu_gives_the_loss_and_gradients_of_segments():
    model, rows = built("llama", hidden_size=128).cuda().bfloat16(), chat_rows()
    for parameter in trainable(model):
        parameter.data = parameter.data.float()

    def learned(form):
        model.zero_grad()
        with torch.autocast("cuda", dtype=torch.bfloat16):
            losses, _ = token_losses(model, placed(collate([rows], 0, form), model.device))
        losses.sum().backward()
        return losses.sum().item(), torch.cat([p.grad.flatten() for p in trainable(model) if p.grad is not None])

    (ragged, ours), (segments, theirs) = learned("ragged"), learned("segments")
    assert ragged == pytest.approx(segments, rel=1e-2)
    assert torch.nn.functional.cosine_similarity(ours, theirs, dim=0).item() > 0.999


@pytest.mark.parametrize("architecture", ["llama", "phi"])  # without and with biases
def test_fused_layers_give_the_gradients_of_pefts(architecture):
    model, rows = built(architecture), chat_rows()
    plain = gradients(model, [[rows]])
    assert fuse(model) > 0
    assert_same(gradients(model, [[rows]]), plain)


@pytest.mark.parametrize("scale", [1.0, 2.0**14])
def test_float16_with_a_scaled_loss_gives_the_gradients_of_float32(scale):
    """On cards without bfloat16 (V100, T4) gradients are scaled, or small ones would be zero."""
    rows = chat_rows()
    expected = gradients(built("llama"), [[rows]])[1]
    model = built("llama").half()
    for parameter in trainable(model):
        parameter.data = parameter.data.float()
    fuse(model)
    with torch.autocast("cpu", dtype=torch.float16):
        losses, _ = token_losses(model, collate([rows], 0))
    (losses.sum() * scale * 1e-3).backward()
    found = torch.cat([p.grad.flatten() for p in trainable(model) if p.grad is not None]) / (scale * 1e-3)
    assert torch.nn.functional.cosine_similarity(found, expected, dim=0).item() > 0.999
    assert (found.norm() / expected.norm()).item() == pytest.approx(1, abs=0.02)


def test_fused_layers_do_nothing_while_the_adapter_is_off():
    model, rows = built("llama"), chat_rows()
    with model.disable_adapter(), torch.no_grad():
        expected, _ = token_losses(model, collate([rows], 0))
    fuse(model)
    with model.disable_adapter(), torch.no_grad():
        found, _ = token_losses(model, collate([rows], 0))
    assert torch.allclose(found, expected)


def test_layers_with_dropout_keep_pefts_forward():
    base = AutoModelForCausalLM.from_config(AutoConfig.for_model("llama", **SMALL, **GROUPED))
    model = get_peft_model(base, LoraConfig(r=4, lora_dropout=0.5, target_modules=["q_proj"], task_type="CAUSAL_LM"))
    assert fuse(model) == 0


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("scale", [{}, {"logits_scaling": 3.0}, {"final_logit_softcapping": 5.0}])
def test_the_head_in_pieces_gives_the_loss_and_gradients_of_whole_logits(smoothing, scale, monkeypatch):
    from steps import supervised_head

    model, rows = built("llama"), chat_rows()
    for key, value in scale.items():
        setattr(model.config, key, value)
    batch = collate([rows], 0)
    model.zero_grad()
    monkeypatch.setattr(supervised_head, "PIECE_LOGITS", 16 * SMALL["vocab_size"])
    losses, labels = token_losses(model, batch, smoothing)
    (losses * torch.arange(1, len(losses) + 1)).sum().backward()  # each token with a weight of its own
    found = losses.sum().item(), torch.cat([p.grad.flatten() for p in trainable(model) if p.grad is not None])

    model.zero_grad()
    base: Any = model.get_base_model()
    hidden = base.get_decoder()(
        input_ids=batch["input_ids"], position_ids=batch["position_ids"], segments=batch["segments"],
        attention_mask=torch.ones(1, 1, 1, 1, dtype=torch.bool),
    ).last_hidden_state  # fmt: skip
    logits = base.lm_head(hidden[:, :-1])[batch["labels"][:, 1:] != IGNORED].float()
    logits = logits / scale.get("logits_scaling", 1.0)
    if cap := scale.get("final_logit_softcapping"):
        logits = cap * torch.tanh(logits / cap)
    whole = torch.nn.functional.cross_entropy(logits, labels, reduction="none", label_smoothing=smoothing)
    (whole * torch.arange(1, len(whole) + 1)).sum().backward()
    expected = whole.sum().item(), torch.cat([p.grad.flatten() for p in trainable(model) if p.grad is not None])
    assert_same(found, expected)
