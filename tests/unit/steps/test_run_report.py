"""The report of a run says what came out, draws it, and escapes what it shows."""

import html
import re
from xml.etree import ElementTree

import pytest

from steps.run_report import report

LOSS = {"loss": 2.0, "end_loss": 1.0, "perplexity": 7.4}
FIGURES = {
    "base": {**LOSS, "loss": 4.0}, "tuned": LOSS, "held_out_rows": 9, "difference": -2.0, "standard_error": 0.1,
    "steps": 3, "total_steps": 3, "stopped_by": "",
    "levers": {"packs": 2, "accumulation_steps": 1, "recompute_every": 0, "dequantise_once": False, "processes": 1},
    "tokens_per_second": 210.4, "train_seconds": 61.0, "peak_memory_bytes": 3 << 30,
    "tokens": 1000, "computed_tokens": 480,
    "history": [{"step": n, "loss": 4.0 - n, "learning_rate": 1e-3} for n in (1, 2, 3)],
    "scored": [{"step": 3, "epoch": 1.0, "loss": 2.0}],
    "answers": [{"question": "<b>why</b>", "base": "so", "base_stopped": False, "tuned": "yes", "tuned_stopped": True}],
}  # fmt: skip
RECIPE = {"training": {"seed": 7, "packing": True}, "origins": {"training.seed": "training config"}}


def text_of(page):
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]+>", " ", page)))


def test_it_says_what_came_out_and_who_decided_what():
    said = text_of(report("ws", FIGURES, RECIPE))
    for part in (
        "ws: held-out loss 4.000 → 2.000", "0.50 times the base's loss", "-2.0000 ± 0.1000", "so … (cut)",
        "0 of 1 1 of 1", "A step: 2 packs at a time.",
        "training.seed 7 training config", "training.packing True default", "52% of the tokens spared",
    ):  # fmt: skip
        assert part in said


def test_a_run_that_its_budget_ended_says_so():
    levers = {**FIGURES["levers"], "recompute_every": 1, "processes": 4}
    said = text_of(report("ws", {**FIGURES, "total_steps": 9, "stopped_by": "max-hours", "levers": levers}, RECIPE))
    assert "3 of 9" in said
    assert "all layers computed again, in each of 4 processes. Ended by its max-hours, and packed as it was." in said


def test_the_curve_is_well_formed_and_inside_its_frame():
    found = re.search(r"<svg.*?</svg>", report("ws", FIGURES, RECIPE))
    assert found is not None
    svg = ElementTree.fromstring(found[0])  # noqa: S314  (our own text)
    line = next(e for e in svg if e.tag == "polyline")
    points = [tuple(map(float, p.split(","))) for p in line.attrib["points"].split()]
    assert len(points) == 3
    assert all(0 <= x <= 720 and 0 <= y <= 240 for x, y in points)
    assert [y for _, y in points] == sorted(y for _, y in points)  # a loss that falls is drawn falling
    assert len([e for e in svg if e.tag == "circle"]) == 1


def test_texts_of_the_dataset_are_escaped():
    page = report("<ws>", FIGURES, RECIPE)
    assert "<b>why</b>" not in page
    assert "&lt;b&gt;why&lt;/b&gt;" in page
    assert "<title>&lt;ws&gt;: tuning report</title>" in page


@pytest.mark.parametrize("missing", [{"base": None, "tuned": None, "scored": [], "answers": []}])
def test_a_run_without_held_out_rows_has_a_report_too(missing):
    assert "no rows were held out" in report("ws", {**FIGURES, **missing}, RECIPE)


def test_the_same_figures_give_the_same_page():
    assert report("ws", FIGURES, RECIPE) == report("ws", FIGURES, RECIPE)
