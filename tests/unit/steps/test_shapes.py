"""Columns to messages."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from presets.errors import DataError
from presets.recipe import DataRecipe
from steps.messages import check_turns
from steps.shapes import RowError, choose_shape


def data(**columns):
    named = {"context_column": None, "response_column": None, "messages_column": None, **columns}
    return DataRecipe((), None, (), None, None, **named, shuffle=True, seed=42, held_out_fraction=0.1)


def read(row, **columns):
    shape = choose_shape(list(row), data(**columns))
    return shape.name, [(m["role"][0], m["content"]) for m in shape.read(row).messages]


@pytest.mark.parametrize(
    ("row", "name", "messages"),
    [
        ({"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}, "messages", "qa"),
        ({"messages": '[{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]'}, "messages", "qa"),
        ({"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]}, "conversations", "qa"),
        ({"prompt": "q", "completion": "a"}, "prompt/completion", "qa"),
        ({"prompt": "q", "response": "a"}, "prompt/response", "qa"),
        ({"question": "q", "answer": ["a", "b"], "id": 3}, "question/answer", "qa"),
        ({"question": "q", "answer": 1}, "question/answer", "q1"),
        ({"instruction": "q", "output": "a", "input": " "}, "instruction/output", "qa"),
    ],
)
def test_known_shapes_are_detected(row, name, messages):
    assert read(row) == (name, [("u", messages[0]), ("a", messages[1])])


def test_an_alpaca_input_follows_its_instruction():
    _, messages = read({"instruction": "Sum up.", "input": "Long text.", "output": "Text."})
    assert messages[0] == ("u", "Sum up.\n\nLong text.")


def test_named_columns_win_over_detection():
    row = {"messages": "x", "title": "q", "body": "a"}
    assert read(row, context_column="title", response_column="body") == ("columns", [("u", "q"), ("a", "a")])


def test_the_only_other_column_is_the_question():
    assert read({"q": "q", "a": "a"}, response_column="a")[1][0] == ("u", "q")


@pytest.mark.parametrize(
    ("row", "columns", "reason"),
    [
        ({"x": 1, "y": 2}, {}, "ShapeUnknown"),
        ({"x": 1}, {"response_column": "y"}, "ColumnMissing"),
        ({"x": 1, "y": 2, "z": 3}, {"response_column": "x"}, "ColumnMissing"),
    ],
)
def test_what_cannot_be_read_is_refused_with_the_columns_named(row, columns, reason):
    with pytest.raises(DataError) as caught:
        choose_shape(list(row), data(**columns))
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    "row",
    [
        {"messages": None},
        {"messages": ["q"]},
        {"messages": [{"role": "robot", "content": "x"}]},
        {"messages": [{"role": "user", "content": None}]},
        {"messages": [{"content": "x"}]},
    ],
)
def test_a_row_that_is_not_messages_says_why(row):
    with pytest.raises(RowError):
        choose_shape(list(row), data()).read(row)


@pytest.mark.parametrize(
    ("roles", "problem"),
    [
        ("ua", None),
        ("sua", None),
        ("uaua", None),
        ("", "no assistant"),
        ("u", "no assistant"),
        ("su", "no assistant"),
        ("uau", "last turn"),
        ("a", "out of order"),
        ("uuaa", "out of order"),
        ("usa", "out of order"),
    ],
)
def test_turns_must_alternate_and_end_with_the_assistant(roles, problem):
    names = {"u": "user", "a": "assistant", "s": "system"}
    said = check_turns([{"role": names[r], "content": "x"} for r in roles])
    assert said is None if problem is None else problem in (said or "")


def test_an_empty_answer_is_refused():
    assert check_turns([{"role": "user", "content": "x"}, {"role": "assistant", "content": "  "}])


@given(
    st.dictionaries(
        st.sampled_from(["messages", "prompt", "completion", "question", "answer"]),
        st.none() | st.text() | st.lists(st.text()),
    )
)
def test_any_row_gives_messages_or_a_reason(row):
    try:
        messages = choose_shape(list(row), data()).read(row).messages
    except (DataError, RowError, ValueError):
        return
    assert check_turns(messages) is None or isinstance(check_turns(messages), str)
