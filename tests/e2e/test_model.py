"""The parts that need a real model: labels, packing, quantisation."""

import importlib.metadata
from dataclasses import replace

import pytest
import torch

from presets.catalogue import catalogue, chat_template_text
from presets.errors import ConfigError, DataError
from presets.levers import first, ladder
from presets.recipe import DataRecipe, LoraRecipe, ModelRecipe, PackagedWeights, QuantizationRecipe, TrainingRecipe
from steps.adapter import add_adapter, trainable
from steps.base_model import attention_of, disarm, load_base, load_tokenizer
from steps.batches import collate
from steps.chat import IGNORED, encode
from steps.contract import Context
from steps.evaluation import Score, compare, end_token_ids, score
from steps.gguf_weights import convert
from steps.loss import token_losses
from steps.messages import Conversation
from steps.package_files import find_in_package
from steps.progress import ProgressFile
from steps.training import Task, train
from steps.training_arguments import arguments

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]
FULL = QuantizationRecipe(16, "nf4", True, "float32", 6.0, (), False)
DESCRIBED = ModelRecipe("x", "x", "x", "x", False, 8192, None, "float32", None, None, None)
PACKAGE = PackagedWeights(**catalogue()["smollm2-135m-instruct"].weights.model_dump()["package"])


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    convert(find_in_package(PACKAGE), folder)
    return folder


@pytest.fixture(scope="module")
def tokenizer(weights):
    return load_tokenizer(weights, DESCRIBED)


def turn(role, content):
    return {"role": role, "content": content}


ROWS = [
    Conversation(
        [turn("user", f"what is {i} plus {i}"), turn("assistant", f"It is {2 * i}, since you ask" + " again" * (i % 5))]
    )
    for i in range(9)
] + [
    Conversation(
        [
            turn("system", "Be brief."),
            turn("user", "hi"),
            turn("assistant", "Hi."),
            turn("user", "bye"),
            turn("assistant", "Bye."),
        ]
    )
]


def test_answers_and_their_end_tokens_are_supervised_by_the_models_own_template(tokenizer):
    row = encode(tokenizer, ROWS[-1], assistant_only=True, max_tokens=999)
    kept = [label for label in row.labels if label != IGNORED]
    assert tokenizer.decode(kept) == "Hi.<|im_end|>Bye.<|im_end|>"


def test_the_plain_template_of_base_models_ends_answers_with_the_end_token(tokenizer, weights):
    own = load_tokenizer(weights, replace(DESCRIBED, chat_template=chat_template_text(catalogue()["phi-2"])))
    row = encode(own, ROWS[-1], assistant_only=True, max_tokens=999)
    assert own.decode([label for label in row.labels if label != IGNORED]) == " Hi.<|im_end|> Bye.<|im_end|>"


@pytest.fixture(scope="module")
def model(weights):
    torch.manual_seed(0)
    adapted = add_adapter(
        load_base(weights, FULL), LoraRecipe(4, 8, 0.0, ("q_proj", "v_proj", "down_proj"), {}), seed=1
    )
    for parameter in trainable(adapted):
        parameter.data.normal_(0, 0.02)
    return adapted


def gradients(model, packs, pad_id):
    model.zero_grad()
    total = torch.tensor(0.0)
    for pack in packs:
        losses, _ = token_losses(model, collate([pack], pad_id))
        losses.sum().backward()
        total += losses.detach().sum()
    return total.item(), torch.cat([p.grad.flatten() for p in trainable(model) if p.grad is not None])


def test_packed_rows_have_the_loss_and_gradients_of_single_rows(model, tokenizer):
    rows = [encode(tokenizer, row, assistant_only=True, max_tokens=999) for row in ROWS]
    single, one_by_one = gradients(model, [[row] for row in rows], tokenizer.pad_token_id)
    packed, together = gradients(model, [rows[:4], rows[4:]], tokenizer.pad_token_id)
    assert packed == pytest.approx(single, rel=1e-5)
    assert torch.nn.functional.cosine_similarity(one_by_one, together, dim=0).item() > 0.99999


def test_the_loss_where_it_is_supervised_is_the_loss_over_full_logits(model, tokenizer):
    row = encode(tokenizer, ROWS[0], assistant_only=True, max_tokens=999)
    losses, _ = token_losses(model, collate([[row]], tokenizer.pad_token_id))
    ids, labels = torch.tensor([row.ids]), torch.tensor([row.labels])
    expected = model(input_ids=ids, labels=labels).loss
    assert losses.mean().item() == pytest.approx(expected.item(), rel=1e-5)


def test_scoring_does_not_depend_on_how_rows_are_batched(model, tokenizer, monkeypatch):
    rows = [encode(tokenizer, row, assistant_only=True, max_tokens=999) for row in ROWS]
    ends = end_token_ids(model, tokenizer)
    together = score(model, rows, tokenizer.pad_token_id, ends)
    monkeypatch.setattr("steps.evaluation.TOKENS_PER_BATCH", 1)
    apart = score(model, rows, tokenizer.pad_token_id, ends)
    assert apart.loss == pytest.approx(together.loss, rel=1e-5)
    assert apart.row_losses == pytest.approx(together.row_losses, rel=1e-4)


def test_a_model_compared_with_itself_is_not_better():
    same = Score(2.0, 1.0, (1.0, 2.0, 3.0), 30)
    assert (compare(same, same).difference, compare(same, same).standard_error) == (0, 0)


NF4 = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True}


def quantised(weights, *, disarmed):
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    config = BitsAndBytesConfig(**NF4, bnb_4bit_compute_dtype=torch.bfloat16)
    base = AutoModelForCausalLM.from_pretrained(
        weights,
        dtype=torch.bfloat16,
        quantization_config=config,
        device_map={"": "cpu"},
        attn_implementation=attention_of(weights),
    )
    if disarmed:
        disarm(base)
    base.requires_grad_(False)
    torch.manual_seed(0)
    adapted = add_adapter(base, LoraRecipe(4, 8, 0.0, ("q_proj", "down_proj"), {}), seed=1)
    for parameter in trainable(adapted):
        parameter.data.normal_(0, 0.02)
    return adapted


def test_an_evaluation_between_steps_leaves_the_gradients_right(weights, tokenizer):
    """Bitsandbytes 0.50.2 repacks Linear4bit in eval mode on CPUs with AVX-512 BF16, for good."""
    rows = [encode(tokenizer, row, assistant_only=True, max_tokens=999) for row in ROWS[:3]]
    model = quantised(weights, disarmed=True)
    model.train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        _, before = gradients(model, [rows], tokenizer.pad_token_id)
        score(model, rows, tokenizer.pad_token_id, end_token_ids(model, tokenizer))
        _, after = gradients(model, [rows], tokenizer.pad_token_id)
    assert torch.nn.functional.cosine_similarity(before, after, dim=0).item() > 0.999
    assert (after.norm() / before.norm()).item() == pytest.approx(1, abs=0.01)


def test_dequantising_once_keeps_the_numbers_of_the_quantised_base(weights, tokenizer):
    rows = [encode(tokenizer, row, assistant_only=True, max_tokens=999) for row in ROWS]
    four_bit = QuantizationRecipe(4, "nf4", True, "bfloat16", 6.0, (), False)
    cached = load_base(weights, four_bit)
    assert not [m for m in cached.modules() if type(m).__name__ == "Linear4bit"]
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    config = BitsAndBytesConfig(**NF4, bnb_4bit_compute_dtype=next(cached.parameters()).dtype)
    kept = AutoModelForCausalLM.from_pretrained(
        weights,
        dtype=next(cached.parameters()).dtype,
        quantization_config=config,
        device_map={"": "cpu"},
        attn_implementation=attention_of(weights),
    )
    disarm(kept)
    ends = end_token_ids(cached, tokenizer)
    losses = [score(m.eval(), rows, tokenizer.pad_token_id, ends).loss for m in (cached, kept)]
    assert losses[0] == pytest.approx(losses[1], rel=5e-3)


def test_eight_bit_weights_give_the_gradients_of_sixteen_bits_but_for_rounding(weights, tokenizer):
    rows = [encode(tokenizer, row, assistant_only=True, max_tokens=999) for row in ROWS]

    def learned(bits):
        base = load_base(weights, QuantizationRecipe(bits, "nf4", True, "bfloat16", 6.0, (), False))
        adapted = add_adapter(base, LoraRecipe(4, 8, 0.0, ("q_proj", "down_proj"), {}), seed=1)
        chance = torch.Generator().manual_seed(1)
        for parameter in trainable(adapted):
            torch.nn.init.normal_(parameter, std=0.02, generator=chance)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return gradients(adapted.train(), [rows], tokenizer.pad_token_id)

    (eight, ours), (sixteen, theirs) = learned(8), learned(16)
    assert eight == pytest.approx(sixteen, rel=0.02)
    assert torch.nn.functional.cosine_similarity(ours, theirs, dim=0).item() > 0.98


def test_the_same_seed_gives_the_same_adapter_whatever_was_drawn_before(weights):
    def fresh():
        adapted = add_adapter(load_base(weights, FULL), LoraRecipe(4, 8, 0.0, ("q_proj",), {}), seed=7)
        return torch.cat([parameter.flatten() for parameter in trainable(adapted)])

    torch.manual_seed(1)
    first = fresh()
    torch.rand(5)
    assert torch.equal(first, fresh())


def test_a_loss_that_is_not_a_number_stops_the_training(weights, tokenizer, tmp_path, monkeypatch):
    model = add_adapter(load_base(weights, FULL), LoraRecipe(4, 8, 0.0, ("q_proj",), {}), seed=1)
    rows = [encode(tokenizer, row, assistant_only=True, max_tokens=64) for row in ROWS]
    recipe = TrainingRecipe(1, 3, 1, 1, 1e-3, "linear", 0.05, 64, True, True, False, 42, {"save_strategy": "no"})
    data = DataRecipe((), None, (), None, None, None, None, None, True, 42, 0.1)

    def not_a_number(*arguments):
        losses, labels = token_losses(*arguments)
        return losses * float("nan"), labels

    monkeypatch.setattr("steps.training.token_losses", not_a_number)
    with pytest.raises(DataError, match="The loss is nan at step 1"):
        train(
            model,
            Task(rows, recipe, data, tokenizer.pad_token_id, tmp_path),
            ladder(first(recipe)),
            Context(tmp_path, ProgressFile(None)),
        )


def test_values_that_the_libraries_refuse_are_refused_in_words(weights, tmp_path):
    with pytest.raises(ConfigError, match="peft refuses the LoraConfig"):
        add_adapter(load_base(weights, FULL), LoraRecipe(4, 8, 0.0, ("no_such_layer",), {}), seed=1)
    wrong = TrainingRecipe(1, 2, 1, 1, 1e-3, "no-such-schedule", 0.05, 64, True, True, False, 42, {})
    with pytest.raises(ConfigError, match="transformers refuses the TrainingArguments"):
        arguments(wrong, tmp_path, first(wrong))


def test_changed_weights_in_the_package_are_refused():
    assert importlib.metadata.version(PACKAGE.name) == PACKAGE.version
    with pytest.raises(DataError, match="not the file that the catalogue pins"):
        find_in_package(replace(PACKAGE, sha256="0" * 64))
    with pytest.raises(ConfigError, match="not installed"):
        find_in_package(replace(PACKAGE, name="no-such-package"))
    with pytest.raises(ConfigError, match="has no file"):
        find_in_package(replace(PACKAGE, file="none.gguf"))
