"""The entry point of a step: exit codes, termination messages, outputs."""

import errno
import json

import pytest

from presets.errors import ConfigError, DataError, NotPermittedError, TryAgainError, UnavailableError
from steps import main as entry
from steps import provision
from steps.content_keys import content_key
from steps.contract import OUTPUTS, Result, write_result

REQUEST = {
    "verb": "provision",
    "workspace": {"name": "w", "namespace": "default", "uid": "", "revision": "r"},
    "store": "layout:/nowhere",
    "target": "local",
    "recipe": {},
    "inputs": {},
}


@pytest.fixture
def step(tmp_path, monkeypatch):
    """Run the provision step, its work replaced; return (exit code, termination message)."""
    why = tmp_path / "why"
    monkeypatch.setenv("KAIFLOW_TERMINATION_LOG", str(why))
    request = tmp_path / "request.json"

    def run(work=None, body=None):
        if work is not None:
            monkeypatch.setattr(provision, "run", work)
        request.write_text(json.dumps(body or REQUEST))
        code = entry.main(["provision", "--request", str(request), "--work", str(tmp_path / "work")])
        return code, why.read_text() if why.exists() else ""

    return run


def failing(error):
    def work(request, context):
        raise error

    return work


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (DataError("R", "M.", fix="F."), 65),
        (UnavailableError("R", "M.", fix="F."), 69),
        (TryAgainError("R", "M.", fix="F."), 75),
        (NotPermittedError("R", "M.", fix="F."), 77),
        (ConfigError("R", "M.", fix="F."), 78),
    ],
)
def test_an_error_becomes_its_exit_code_and_says_why(step, error, code):
    assert step(failing(error)) == (code, "R: M. Fix: F.")


def test_a_full_disk_is_said_in_words(step):
    code, why = step(failing(OSError(errno.ENOSPC, "No space left on device", "/data/x")))
    assert code == 69
    assert why.startswith("DiskFull: There is no space left on the disk (/data/x). Fix:")


def test_a_fault_of_our_own_keeps_its_traceback_in_the_log(step, capsys):
    code, why = step(failing(RuntimeError("boom")))
    assert code == 70
    assert why.startswith("InternalError: The step ended with RuntimeError.")
    assert "boom" in capsys.readouterr().err


def test_a_request_of_another_form_is_a_fault_not_a_guess(step):
    assert step(body={**REQUEST, "surprise": 1})[0] == 70


def test_outputs_are_written_for_argo_and_logs_are_json(step, tmp_path, capsys):
    assert step() == (0, "")
    outputs = tmp_path / "work" / "outputs"
    assert {path.name for path in outputs.iterdir()} == set(OUTPUTS["provision"])
    assert "cores" in (outputs / "nodes").read_text()
    events = [json.loads(line)["event"] for line in capsys.readouterr().out.splitlines()]
    assert events == ["started", "machine", "finished"]


def test_a_step_gives_exactly_its_contracts_outputs(tmp_path):
    with pytest.raises(KeyError):
        write_result(Result({"nodes": "x"}), "provision", tmp_path)
    with pytest.raises(KeyError):
        write_result(Result({"nodes": "x", "cached": "false", "more": "y"}), "provision", tmp_path)


def test_a_content_key_changes_with_anything_it_depends_on():
    key = content_key("tune", a=1, b="x")
    assert key == content_key("tune", b="x", a=1)
    assert len({key, content_key("tune", a=2, b="x"), content_key("push", a=1, b="x"), content_key("tune", a=1)}) == 4
