"""What a person sees."""

import io

from rich.console import Console

from controller.durations import age, between, seconds_text
from controller.training_log import training_events
from controller.view import LiveView, PlainView, render, sparkline, view_for

STEPS = [
    {
        "name": "fetch",
        "phase": "Succeeded",
        "startedAt": "2026-11-23T10:00:00Z",
        "finishedAt": "2026-11-23T10:00:03Z",
        "reused": True,
    },
    {"name": "tune", "phase": "Running", "startedAt": "2026-11-23T10:00:03Z", "progress": "3/40"},
    {"name": "push", "phase": "Pending"},
]
WORKSPACE = {
    "metadata": {"name": "w"},
    "status": {"state": "Running", "progress": "1/3", "steps": STEPS, "training": {"etaSeconds": 65}},
}
EVENT = {"trained_steps": 3, "total_steps": 40, "loss": 3.14159, "tokens_per_second": 180.2, "eta_seconds": 65}


def drawn(renderable):
    text = io.StringIO()
    Console(file=text, width=100, force_terminal=False).print(renderable)
    return text.getvalue()


def test_the_picture_shows_steps_progress_loss_and_time_left():
    text = drawn(render(WORKSPACE, [5.0, 4.0, 3.0]))
    for part in ("w  Running  1/3 steps", "✔", "fetch", "reused", "●", "3/40", "loss 3.000", "█▅▁", "1m05s left"):
        assert part in text, part


def test_before_anything_is_known_the_picture_is_empty_not_broken():
    assert drawn(render({}, [])).strip() == "Pending   steps"


def test_a_sparkline_is_as_wide_as_it_may_be():
    assert sparkline([]) == ""
    assert sparkline([2, 2]) == "▁▁"
    assert sparkline(list(range(8))) == "▁▂▃▄▅▆▇█"
    assert len(sparkline(list(range(1000)), width=48)) <= 48


def test_plain_lines_tell_every_change_once():
    printed = io.StringIO()
    view = PlainView(Console(file=printed, width=100))
    for _ in range(2):
        view(WORKSPACE, [EVENT])
    text = printed.getvalue()
    assert text.count("✔ fetch      Succeeded reused (3s)") == 1
    assert text.count("step 3/40, loss 3.142, 180 tokens/s, 1m05s left") == 1


def test_a_terminal_gets_the_picture_and_a_pipe_the_lines():
    assert isinstance(view_for(Console(force_terminal=True, file=io.StringIO())), LiveView)
    assert isinstance(view_for(Console(force_terminal=False, file=io.StringIO())), PlainView)


def test_the_live_view_draws_while_it_is_open():
    shown = io.StringIO()
    with LiveView(Console(file=shown, force_terminal=True, width=100, no_color=True)) as view:
        view(WORKSPACE, [EVENT])
    assert "loss 3.142" in shown.getvalue()


def test_times_for_people():
    assert (seconds_text(5), seconds_text(65), seconds_text(7800)) == ("5s", "1m05s", "2h10m")
    assert between("2026-11-23T10:00:00Z", "2026-11-23T10:01:01Z") == "1m01s"
    assert (between(None, None), age(None)) == ("", "-")
    assert age("2020-01-01T00:00:00Z").endswith("d")


def test_training_events_are_found_at_the_end_of_a_log(tmp_path):
    log = tmp_path / "tune.log"
    log.write_text(
        "x" * 50000 + '\nnot json\n{"event": "other"}\n{"event": "training", "trained_steps": 7}\n{"event": "trai'
    )
    assert [event["trained_steps"] for event in training_events(log)] == [7]
    assert training_events(tmp_path / "none") == []
