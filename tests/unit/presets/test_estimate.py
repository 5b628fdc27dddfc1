"""Hours and dollars as ranges: the arithmetic, and what is said where something is not known."""

import pytest

from presets.catalogue import find_model
from presets.estimate import NODE_HOURS, SHARE_OF_PEAK, estimate, flops_per_token
from presets.gpus import skus
from presets.levers import Levers

A100, V100 = "standard_nc24ads_a100_v4", "standard_nc6s_v3"


def shape_of(name):
    model = find_model(name)
    assert model is not None
    assert model.shape is not None
    return model.shape


@pytest.fixture
def told(workspace, recipe_of):
    def of(machine=A100, levers=Levers(1, 1), tokens=None, **training):  # noqa: B008  (frozen)
        recipe = recipe_of(workspace, TrainingArguments=training) if training else recipe_of(workspace)
        return estimate(shape_of(recipe.model.preset), recipe.training, levers, skus()[machine], tokens)

    return of


def test_a_token_costs_four_operations_a_weight_and_two_more_where_layers_are_computed_again():
    shape = shape_of("llama-3.1-8b-instruct")
    base = flops_per_token(shape, 0)
    assert base == pytest.approx(4 * 7.5e9, rel=0.03)  # linear layers and head
    assert flops_per_token(shape, 1) == base + 2 * shape.linear_parameters
    assert flops_per_token(shape, 2) == base + shape.linear_parameters


def test_tokens_of_the_rows_give_hours_and_dollars_of_the_node(told):
    found = told(tokens=3_000_000, num_train_epochs=2)
    assert found.tokens == 6_000_000
    assert found.hours.low == pytest.approx(6e6 / found.tokens_per_second.high / 3600 + NODE_HOURS[0])
    price = skus()[A100].price
    assert price is not None
    assert found.usd.low == pytest.approx(found.hours.low * price.usd_per_hour)
    assert found.hours.low < found.hours.high
    assert "2 epochs of 3,000,000 tokens" in found.assumptions


def test_without_tokens_it_is_told_of_a_million(told):
    found = told()
    assert found.tokens is None
    assert found.hours.high == pytest.approx(1e6 / found.tokens_per_second.low / 3600)
    assert "known when the rows are read" in found.assumptions[0]


def test_steps_that_are_named_say_the_tokens(told):
    found = told(max_steps=10, per_device_train_batch_size=2, gradient_accumulation_steps=3, max_length=256)
    assert found.tokens == 10 * 2 * 3 * 256


def test_a_card_that_does_less_takes_longer_and_recomputing_too(told):
    assert told(V100).tokens_per_second.high < told(A100).tokens_per_second.high
    assert told(levers=Levers(1, 1, 1)).tokens_per_second.high < told().tokens_per_second.high
    ratio = told().tokens_per_second.high / told().tokens_per_second.low
    assert ratio == pytest.approx(SHARE_OF_PEAK[1] / SHARE_OF_PEAK[0])


def test_a_missing_price_is_said_and_not_guessed(told):
    priceless = next(name for name, sku in skus().items() if sku.price is None and sku.gpu.usable)
    found = told(priceless, tokens=10**6)
    assert found.usd is None
    assert found.assumptions[-1] == "no price is known for the machine"
