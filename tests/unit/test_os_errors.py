"""The operating system's refusals are told in words, whichever library met them."""

import errno

import pytest
from safetensors import SafetensorError

from presets.os_errors import explain_os_error


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device", "/data/model"),
        SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
    ],
)
def test_a_full_disk_is_told_as_one(error):
    explained = explain_os_error(error)
    assert explained is not None
    assert (explained.reason, explained.exit_code) == ("DiskFull", 69)


@pytest.mark.parametrize("error", [OSError(errno.EPIPE, "Broken pipe"), ValueError("28"), KeyError("os error 28")])
def test_anything_else_stays_what_it_is(error):
    assert explain_os_error(error) is None
