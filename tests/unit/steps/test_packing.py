"""Packs hold every row once and overflow never."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steps.packing import pack, packs_in_order

lengths = st.lists(st.integers(min_value=1, max_value=64), max_size=200)


@given(lengths)
def test_every_row_is_in_exactly_one_pack_and_none_overflows(rows):
    for packs in (pack(rows, 64), packs_in_order(rows, 64)):
        assert sorted(i for p in packs for i in p) == list(range(len(rows)))
        assert all(sum(rows[i] for i in p) <= 64 for p in packs)


@given(lengths)
def test_no_two_packs_could_be_one(rows):
    sums = sorted(sum(rows[i] for i in p) for p in pack(rows, 64))
    assert len(sums) < 2 or sums[0] + sums[1] > 64


@given(lengths)
def test_rows_keep_their_order_where_shuffling_is_off(rows):
    assert [i for p in packs_in_order(rows, 64) for i in p] == list(range(len(rows)))


@pytest.mark.parametrize("packer", [lambda r: pack(r, 8), lambda r: packs_in_order(r, 8)])
def test_a_row_longer_than_a_pack_is_refused(packer):
    with pytest.raises(ValueError, match="does not fit"):
        packer([9])
