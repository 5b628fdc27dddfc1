"""Which GPUs a process may use."""

import pytest

from steps.machine import gpus


@pytest.fixture
def four(tmp_path, monkeypatch):
    """A driver that shows four cards."""
    driver = tmp_path / "nvidia-smi"
    driver.write_text("#!/bin/sh\nprintf 'A\\nB\\nC\\nD\\n'\n")
    driver.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")


@pytest.mark.parametrize(
    ("named", "left"),
    [
        (None, ("A", "B", "C", "D")), ("0", ("A",)), ("2,1", ("C", "B")), ("", ()), ("-1", ()), ("1,-1,2", ("B",)),
        ("7", ()), ("GPU-8932f937, 3", ("A", "D")),
    ],
)  # fmt: skip
def test_those_that_are_visible_are_counted(four, monkeypatch, named, left):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if named is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    assert gpus() == left
