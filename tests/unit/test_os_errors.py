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


def test_a_file_that_cannot_be_read_is_not_said_to_be_a_folder_that_cannot_be_written(tmp_path, monkeypatch):
    path = tmp_path / "rows.csv"
    path.touch()
    refused = OSError(errno.EACCES, "Permission denied", str(path))
    monkeypatch.setattr("presets.os_errors.os.access", lambda *_: False)
    found = explain_os_error(refused)
    assert found is not None
    assert (found.reason, str(path) in found.message) == ("NotReadable", True)
    folder = explain_os_error(OSError(errno.EACCES, "Permission denied", str(tmp_path)))
    assert folder is not None
    assert folder.reason == "NotWritable"
