"""How several training processes tell their end, with plain commands in place of the launcher."""

import json
import sys

import pytest

from presets.errors import ConfigError, KaiflowError, TryAgainError, UnavailableError
from steps import launch
from steps.contract import Context, Request, WorkspaceRef

REQUEST = Request(
    verb="tune", workspace=WorkspaceRef(name="a", namespace="b", uid="c", revision="d"), store="", target="local",
    recipe={}, inputs={},
)  # fmt: skip


@pytest.mark.parametrize(
    ("said", "gpus", "expected"), [(None, 0, 1), (None, 4, 4), ("2", 0, 2), ("0", 4, 1), ("x", 2, 2)]
)
def test_one_process_a_gpu_unless_said_otherwise(monkeypatch, said, gpus, expected):
    monkeypatch.delenv(launch.PROCESSES, raising=False)
    if said is not None:
        monkeypatch.setenv(launch.PROCESSES, said)
    assert launch.processes_here(gpus) == expected


@pytest.fixture
def together(tmp_path, monkeypatch):
    """Train with a script for the processes; it is told the arguments, and the folder that is worked in."""

    def run(script):
        def launcher(_):
            code = f"import json, sys, pathlib\nwork, argv = pathlib.Path({str(tmp_path)!r}), sys.argv\n{script}"
            return [sys.executable, "-c", code]

        monkeypatch.setattr(launch, "launcher", launcher)
        return launch.train_together(REQUEST, Context(tmp_path, lambda done, total: None), "key", "tag", 2)

    return run


TELL = "(work / 'outcome.json').write_text(json.dumps({}))"


def test_the_figures_of_the_first_are_the_figures(together):
    assert together(TELL.format({"figures": {"steps": 3}})) == {"steps": 3}


def test_what_a_process_raises_is_raised_again_as_it_was(together):
    error = {"kind": "TryAgainError", "reason": "Interrupted", "message": "Stopped.", "fix": "Wait."}
    with pytest.raises(TryAgainError) as told:
        together(TELL.format({"error": error}))
    assert (told.value.reason, told.value.message, told.value.fix) == ("Interrupted", "Stopped.", "Wait.")


def test_a_process_that_dies_without_a_word_is_said(together):
    with pytest.raises(UnavailableError, match="exit code is 9"):
        together("sys.exit(9)")


def test_short_of_memory_all_start_again_with_the_next_way_until_none_is_left(together):
    error = {"kind": "ConfigError", "reason": "InsufficientMemory", "message": "No.", "fix": "Less."}
    short, last = {"out_of_memory": True}, {"error": error}
    script = f"attempt = int(argv[argv.index('--attempt') + 1])\nsaid = {last} if attempt == 3 else {short}\n"
    with pytest.raises(ConfigError, match="No"):
        together(script + "(work / 'outcome.json').write_text(json.dumps(said))")


def test_the_first_word_stands(tmp_path):
    launch.tell(tmp_path, figures={"steps": 1})
    launch.tell(tmp_path, error={})
    assert json.loads((tmp_path / launch.OUTCOME_FILE).read_text()) == {"figures": {"steps": 1}}
    assert [path.name for path in tmp_path.iterdir()] == [launch.OUTCOME_FILE]


def test_an_unknown_kind_of_error_is_still_one_of_ours(together):
    with pytest.raises(KaiflowError, match="odd"):
        together(TELL.format({"error": {"kind": "Strange", "reason": "R", "message": "odd", "fix": ""}}))
