"""How a step is cut: the step keeps its size, what memory holds at a time only shrinks, and the first fit is taken."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from presets.levers import FILLED, FILLED_FOR_SPEED, Levers, choose, first, ladder
from presets.recipe import TrainingRecipe


def training(batch_size=1, times=1, recompute=False):
    return TrainingRecipe(1, -1, batch_size, times, 1e-3, "linear", 0, 512, True, True, recompute, 1, {})


def test_fewer_packs_come_before_more_recomputation():
    assert list(ladder(first(training(6, 2)))) == [
        Levers(6, 2), Levers(3, 4), Levers(1, 12), *(Levers(1, 12, every) for every in (4, 3, 2, 1)),
    ]  # fmt: skip


def test_where_all_is_recomputed_already_nothing_is_left():
    assert list(ladder(first(training(recompute=True)))) == [Levers(1, 1, 1)]


@given(st.integers(1, 64), st.integers(1, 16), st.booleans())
def test_the_step_keeps_its_size_and_the_ladder_ends(packs, times, recompute):
    ways = list(ladder(first(training(packs, times, recompute))))
    assert {way.packs * way.accumulation_steps for way in ways} == {packs * times}
    assert [way.packs for way in ways] == sorted((way.packs for way in ways), reverse=True)
    assert ways[-1].packs == 1
    assert ways[-1].recompute_every == 1
    assert len(set(ways)) == len(ways)


def need(levers):
    """Return bytes of a model whose terms can be seen: 40 a pack, a quarter with all recomputed; 60 dequantised."""
    kept = 1 - 0.75 / levers.recompute_every if levers.recompute_every else 1
    return round(levers.packs * 40 * kept) + (60 if levers.dequantise_once else 0)


def test_all_fits_and_there_is_room_for_dequantised_weights():
    assert choose(training(2), 4, need, 200) == Levers(2, 1, 0, dequantise_once=True)


def test_dequantised_weights_never_cost_a_smaller_micro_batch():
    assert choose(training(2), 4, need, 100) == Levers(2, 1)


def test_only_four_bit_weights_are_dequantised():
    assert choose(training(2), 16, need, 10_000) == Levers(2, 1)


@pytest.mark.parametrize(("memory", "expected"), [(50, Levers(1, 2)), (30, Levers(1, 2, 2)), (20, Levers(1, 2, 1))])
def test_the_fastest_way_that_fits_is_taken(memory, expected):
    assert choose(training(2), 4, need, memory) == expected


def test_what_never_fits_is_none():
    assert choose(training(2), 4, need, 5) is None


@given(st.integers(1, 400))
def test_what_is_chosen_fits(memory):
    found = choose(training(4), 4, need, memory)
    if found is not None:
        assert need(found) <= (FILLED_FOR_SPEED if found.dequantise_once else FILLED) * memory


def test_in_words():
    assert str(Levers(2, 4)) == "2 packs at a time, 4 times a step"
    assert str(Levers(1, 1, 2)) == "1 pack at a time, one layer in 2 computed again"
    assert str(Levers(1, 1, 1, dequantise_once=True)) == (
        "1 pack at a time, all layers computed again, weights dequantised once"
    )
