"""The gate: published only when the held-out rows say so."""

import pytest

from presets.recipe import EvaluationRecipe, OutputRecipe
from steps.push import image_tag, judge
from steps.store import Manifest


def run_with(base, tuned, difference, error):
    notes = {
        "kaiflow.run.base-loss": base,
        "kaiflow.run.tuned-loss": tuned,
        "kaiflow.run.difference": difference,
        "kaiflow.run.standard-error": error,
    }
    return Manifest("sha256:x", "t", (), notes, 0)


BETTER, SAME = run_with("5", "3", "-2", "0.1"), run_with("5", "4.9", "-0.1", "0.1")
WORSE, NONE, NAN = run_with("5", "6", "1", "0.1"), run_with("", "", "", ""), run_with("5", "nan", "nan", "nan")


@pytest.mark.parametrize(
    ("run", "gate", "verdict"),
    [
        (BETTER, "enforce", "passed"),
        (BETTER, "warn", "passed"),
        (SAME, "enforce", "refused"),
        (SAME, "warn", "warned"),
        (WORSE, "enforce", "refused"),
        (WORSE, "off", "off"),
        (NONE, "enforce", "refused"),
        (NONE, "warn", "warned"),
        (NAN, "enforce", "refused"),
        (NAN, "warn", "refused"),
    ],
)
def test_a_model_passes_only_when_it_is_better_by_more_than_chance(run, gate, verdict):
    assert judge(run, EvaluationRecipe(gate, 6), "")[0] == verdict


@pytest.mark.parametrize(("image", "tag"), [("r.io/a:1.2", "1.2"), ("r.io/a", "latest"), (None, "latest")])
def test_the_users_own_tag_is_used(image, tag):
    assert image_tag(OutputRecipe(image, None, None)) == tag
