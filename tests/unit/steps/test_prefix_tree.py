"""A tree of rows holds every row along its path, shares only what may be shared, and packs never overflow."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from steps.chat import IGNORED, Encoded
from steps.families import sharing_packs
from steps.prefix_tree import lay_out, shareable

CAPACITY = 24


@st.composite
def encoded(draw):
    """A question of few different tokens, so that rows begin alike, and an answer."""
    asked = draw(st.lists(st.integers(0, 2), max_size=12))
    said = draw(st.lists(st.integers(0, 2), min_size=1, max_size=6))
    return Encoded(tuple(asked + said), tuple([IGNORED] * len(asked) + said))


rows_of_some_sizes = st.lists(encoded(), min_size=1, max_size=12)


@given(rows_of_some_sizes)
def test_every_row_lies_along_its_path_at_its_own_positions(rows):
    tree = lay_out(rows)
    assert sorted(tree.order) == list(range(len(rows)))
    for branch, index in zip(tree.branches, tree.order, strict=True):
        assert tuple(tree.ids[branch.path]) == rows[index].ids
        assert tree.positions[branch.path].tolist() == list(range(len(rows[index].ids)))
    own = [np.arange(b.start, b.start + b.length) for b in tree.branches]
    assert np.concatenate(own).tolist() == list(range(len(tree.ids)))


@given(rows_of_some_sizes)
def test_every_answer_token_is_learned_once_behind_the_token_before_it(rows):
    tree = lay_out(rows)
    for branch, index in zip(tree.branches, tree.order, strict=True):
        expected = [(row, label) for row, label in enumerate(rows[index].labels) if label != IGNORED and row]
        mine = range(branch.start, branch.start + branch.length)
        found = [(int(tree.positions[i]), int(tree.labels[i])) for i in mine if tree.labels[i] != IGNORED]
        assert found == expected
        assert all(i > branch.start for i in mine if tree.labels[i] != IGNORED)  # its neighbour is its predecessor
    assert tree.labels[0] == IGNORED


@given(rows_of_some_sizes)
def test_without_sharing_all_tokens_are_there(rows):
    assert len(lay_out(rows, share=False).ids) == sum(len(row.ids) for row in rows)


@given(rows_of_some_sizes, st.integers(0, 3))
def test_packs_hold_every_row_once_and_their_trees_never_overflow(rows, seed):
    packs = sharing_packs(rows, CAPACITY, seed)
    assert sorted(i for pack in packs for i in pack) == list(range(len(rows)))
    assert all(len(lay_out([rows[i] for i in pack]).ids) <= CAPACITY for pack in packs)


@given(rows_of_some_sizes, st.integers(0, 3))
def test_the_same_seed_gives_the_same_packs(rows, seed):
    assert sharing_packs(rows, CAPACITY, seed) == sharing_packs(rows, CAPACITY, seed)


def test_a_short_beginning_makes_a_step_no_larger_in_rows():
    rows = [Encoded((1, 2, 3, 4, n, 5), (*[IGNORED] * 5, 5)) for n in range(10, 30)]
    packs = sharing_packs(rows, CAPACITY, 1)
    assert {len(pack) for pack in packs} == {4}
    assert {len(lay_out([rows[i] for i in pack]).ids) for pack in packs} == {12}


def test_another_seed_mixes_the_rows_otherwise():
    rows = [Encoded((7, n, 5), (IGNORED, IGNORED, 5)) for n in range(40)]
    assert sharing_packs(rows, CAPACITY, 1) != sharing_packs(rows, CAPACITY, 2)


def test_questions_about_one_passage_come_into_one_pack():
    passages = [list(range(n, n + 50)) for n in (100, 200)]
    rows = [
        Encoded((1, 2, 3, 4, *passages[n % 2], 10 + n, 5), (*[IGNORED] * 55, 5)) for n in range(12)
    ]  # trunk, passage, question, answer
    packs = sharing_packs(rows, 90, seed=0)
    assert sorted(sorted(i % 2 for i in pack) for pack in packs) == [[0] * 6, [1] * 6]


def test_packs_grow_no_more_than_they_may():
    rows = [Encoded((*range(100, 160), 10 + n, 5), (*[IGNORED] * 61, 5)) for n in range(12)]
    assert [len(pack) for pack in sharing_packs(rows, 130, seed=0)] == [12]
    assert {len(pack) for pack in sharing_packs(rows, 130, seed=0, growth=1.0)} == {2}
    assert {len(pack) for pack in sharing_packs(rows, 130, seed=0, growth=2.0)} == {4}


def test_nothing_is_shared_up_to_the_token_before_the_first_learned_one():
    assert shareable(Encoded((1, 2, 3, 4), (IGNORED, IGNORED, 3, 4))) == 1
    assert shareable(Encoded((1, 2), (1, 2))) == 0
