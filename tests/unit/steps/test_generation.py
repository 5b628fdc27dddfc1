"""What is shown of a text that comes in pieces, up to its stop string."""

from hypothesis import given
from hypothesis import strategies as st

from steps.generation import Until

LETTERS = st.text(alphabet="ab", max_size=12)


@given(st.lists(LETTERS, max_size=6), st.lists(LETTERS.filter(bool), max_size=3))
def test_pieces_are_shown_up_to_the_stop_string_that_is_whole_first_however_they_are_cut(pieces, stops):
    until = Until(stops)
    shown = "".join(until.piece(text, last=i == len(pieces) - 1) for i, text in enumerate(pieces))
    whole = "".join(pieces)
    ends = [(place + len(stop), place) for stop in stops if (place := whole.find(stop)) >= 0]
    assert shown == whole[: min(ends, default=(0, len(whole)))[1]]


def test_what_cannot_begin_a_stop_string_is_shown_at_once():
    assert Until(["END"]).piece("an answer", last=False) == "an answer"
    assert Until(["END"]).piece("an EN", last=False) == "an "
