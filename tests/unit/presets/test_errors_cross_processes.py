"""Errors are whole on the other side of a process's border."""

import pickle

import pytest

from presets.errors import ConfigError, FieldError, InvalidInput


@pytest.mark.parametrize(
    "error",
    [
        ConfigError("Reason", "It is so.", fix="Mend it."),
        InvalidInput("ws", [FieldError("a.b", "Bad", "It is bad.", "")]),
    ],
)
def test_an_error_crosses_the_border_whole(error):
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), again.reason, again.__dict__) == (
        type(error), str(error), error.reason, error.__dict__,
    )  # fmt: skip
