"""Are a step's log lines JSON, and do they go to the standard output of the moment?"""

import io
import json
import sys

from steps import logs


def test_an_event_is_one_json_line_that_carries_the_fields_of_the_step(capsys):
    logs.configure({"step": "fetch"})
    logs.event("read", rows=3)
    line = json.loads(capsys.readouterr().out)
    assert (line["event"], line["rows"], line["step"], line["level"]) == ("read", 3, "fetch", "info")


def test_a_standard_output_that_was_replaced_and_closed_is_not_written_to_again(monkeypatch, capsys):
    first = io.StringIO()
    monkeypatch.setattr(sys, "stdout", first)
    logs.configure({"step": "fetch"})
    monkeypatch.undo()
    first.close()
    logs.event("read", rows=3)
    assert json.loads(capsys.readouterr().out)["rows"] == 3
